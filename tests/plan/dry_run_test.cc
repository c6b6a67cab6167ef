// Plans of worlds that are not there: what they say is what ranks take.
#include "plan/dry_run.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "comm/world.h"
#include "model/model.h"
#include "parallel/ranks.h"
#include "parallel/released_shapes.h"
#include "train/layouts.h"

namespace temper::plan {
namespace {

int64_t bytes(const Role& role, TensorKind kind) { return role.bytes[static_cast<int>(kind)]; }

DryRunRequest pro_on_1024() {
  DryRunRequest request;
  request.config = parallel::v4_pro();
  request.options.precision = layers::Precision::kBf16;
  request.options.max_tokens = 4096;
  request.options.recompute = model::Recompute::kBlock;
  request.layout = parallel::resolve({.dp = 0, .ep = 64, .pp = 16, .zero = 1}, 1024, request.config);
  request.num_micro_batches = 128;
  return request;
}

TEST(DryRunTest, RanksOfAThousandOwnEveryParameterOnce) {
  const DryRunRequest request = pro_on_1024();
  const DryRun run = dry_run(request);
  ASSERT_EQ(run.roles.size(), 16u);
  double owned = 0;
  int64_t next_site = 0;
  for (const Role& role : run.roles) {
    EXPECT_EQ(role.num_ranks, 64);
    EXPECT_EQ(role.chunks.front().begin, next_site);
    next_site = role.chunks.front().end;
    EXPECT_EQ(role.num_slots, std::min<int64_t>(16 - role.stage, 2));
    owned += static_cast<double>(bytes(role, TensorKind::kMoment)) / 8 * static_cast<double>(role.num_ranks);
  }
  EXPECT_EQ(next_site, 2 * request.config.num_hidden_layers);
  double trained = 0;
  const model::Model model(request.config, request.options);
  for (const layers::Parameter* p : model.parameters())
    if (p->trainable) trained += static_cast<double>(p->shape.size());
  EXPECT_NEAR(owned / trained, 1, 1e-3);  // pieces are padded
}

TEST(DryRunTest, StagesComputeTheModelsFlopsAndWhatTheyRebuild) {
  DryRunRequest request = pro_on_1024();
  request.options.recompute = model::Recompute::kNone;
  const DryRun run = dry_run(request);
  double flops = 0;
  for (const Role& role : run.roles) flops += role.flops * static_cast<double>(role.num_ranks);
  // Beside the model's: attention's scores again in backward, mHC, norms, padding, the optimizer.
  EXPECT_GT(flops / run.model_flops, 1.0);
  EXPECT_LT(flops / run.model_flops, 1.35);
}

TEST(DryRunTest, MemoryOfEveryRankIsThePlan) {
  for (const parallel::Layout& layout :
       {parallel::Layout{.dp = 2, .ep = 2, .pp = 2, .zero = 1}, parallel::Layout{.dp = 4, .zero = 3},
        parallel::Layout{.dp = 1, .pp = 3}, parallel::Layout{.dp = 1, .pp = 8, .zero = 0},
        parallel::Layout{.dp = 2, .pp = 2, .tp = 2, .zero = 2},
        parallel::Layout{.dp = 1, .pp = 2, .schedule = parallel::Schedule::kZeroBubble},
        parallel::Layout{.dp = 2, .pp = 2, .schedule = parallel::Schedule::kInterleaved, .chunks = 2}}) {
    DryRunRequest request;
    request.config = train::testing::layout_config(4);
    request.options.max_tokens = 64;
    request.options.num_threads = 1;
    request.layout = layout;
    request.num_micro_batches = 4;
    const DryRun run = dry_run(request);
    std::mutex mutex;
    std::map<int64_t, int64_t> bytes_of_stage;
    comm::run_ranks(layout.dp * layout.pp * layout.tp, [&](comm::Comm& world) {
      const parallel::Ranks ranks = parallel::join_mesh(world, layout);
      model::ModelOptions options = request.options;
      ranks.place(request.config, request.num_micro_batches, options);
      const train::Session session(backend::cpu_reference(), request.config, options, train::StateMemory::kNone,
                                   &ranks);
      const std::lock_guard lock(mutex);
      bytes_of_stage[ranks.at.pp] = std::max(bytes_of_stage[ranks.at.pp], session.allocated_bytes());
    });
    for (const Role& role : run.roles) EXPECT_EQ(role.total_bytes, bytes_of_stage[role.stage]) << layout.to_string();
  }
}

}  // namespace
}  // namespace temper::plan
