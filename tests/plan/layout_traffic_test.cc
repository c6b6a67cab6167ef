// The formulas count the bytes that ranks send when they take a step.
#include "plan/layout_traffic.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "backend/registry.h"
#include "base/file.h"
#include "comm/world.h"
#include "parallel/ranks.h"
#include "plan/layout_time.h"
#include "train/layouts.h"

namespace temper::plan {
namespace {

using Bytes = std::map<std::string, double>;  // by axis

struct Case {
  parallel::Layout layout;
  int64_t max_document = 0;
  bool rebuilds = false;
};

// Entries of every kind; of one long document the indexer chooses. Three micro-batches a data parallel rank.
DryRunRequest request_of(const Case& c) {
  DryRunRequest request;
  request.config = train::testing::layout_config(4);
  request.options.max_tokens = 72, request.options.max_document = c.max_document;
  request.options.num_threads = 1, request.options.logit_chunk = 10;
  request.options.recompute = c.rebuilds ? model::Recompute::kBlock : model::Recompute::kNone;
  request.options.part.expert_rows = 4096;  // all that come at once: without further rounds
  request.auxiliary.balance = 0.01;
  request.layout = c.layout;
  request.num_micro_batches = 3 * c.layout.dp;
  return request;
}

int64_t num_ranks(const parallel::Layout& layout) { return layout.pp * layout.dp * layout.cp * layout.tp; }

// Of all ranks, in a step.
Bytes measured(const DryRunRequest& request) {
  std::mutex mutex;
  Bytes bytes;
  comm::run_ranks(num_ranks(request.layout), [&](comm::Comm& world) {
    const parallel::Ranks ranks = parallel::join_mesh(world, request.layout);
    model::ModelOptions options = request.options;
    ranks.place(request.config, request.num_micro_batches, options);
    train::Session session(backend::cpu(), request.config, options, train::StateMemory::kNone, &ranks);
    session.model().initialize(session.ctx(), 1);
    const auto objective = objective::make_objective("pretrain", {});
    optim::Adamw adamw({});
    train::Step step({session.ctx(), session.model(), *objective, session.norm_meter(), adamw, 1.0, request.auxiliary});
    const std::vector<layers::MicroBatch> batches(request.num_micro_batches, full_row(request));
    Bytes before;  // of the start
    for (const auto& [axis, group] : ranks.axes()) before[axis] = static_cast<double>(group->traffic().num_bytes);
    step.compute(batches, 1e-4);
    step.update();
    const std::lock_guard lock(mutex);
    for (const auto& [axis, group] : ranks.axes())
      bytes[axis] += static_cast<double>(group->traffic().num_bytes) - before[axis];
  });
  return bytes;
}

Bytes by_formulas(const DryRunRequest& request) {
  const parallel::Layout& layout = request.layout;
  const CutRow row(request, layout.cp);
  LayoutTimes times(request, {});
  const auto m = static_cast<double>((request.num_micro_batches + layout.dp - 1) / layout.dp);
  const bool rebuilds = request.options.recompute != model::Recompute::kNone;
  Bytes bytes;
  for (int64_t rank = 0; rank < num_ranks(layout); ++rank) {
    std::unique_ptr<comm::Comm> world;
    const parallel::Ranks ranks = parallel::imagine_mesh(world, rank, layout);
    model::ModelOptions options = request.options;
    ranks.place(request.config, request.num_micro_batches, options);
    const LayoutTraffic traffic(request, layout, row, ranks.at.cp, ranks.at.tp);
    PassTraffic all;
    const auto add = [&](const Traffic& t, bool is_rebuilt) {
      all.add(t.forward, m), all.add(t.backward, m);
      if (is_rebuilt) all.add(t.rebuilt, m);
    };
    if (ranks.at.pp == 0) add(traffic.embedding(), false);
    if (ranks.at.pp == layout.pp - 1) add(traffic.head(), false);
    for (const parallel::SiteRange& sites : options.part.chunks) {
      for (int64_t site = sites.begin; site < sites.end; ++site) {
        const bool is_rebuilt = rebuilds && site / 2 + 1 < sites.end_layer();  // the last layer's saved is still there
        add(site % 2 == 0 ? traffic.attention(site / 2) : traffic.experts(site / 2), is_rebuilt);
      }
    }
    for (const auto& [axis, messages] : {std::pair{"cp", all.cp}, {"tp", all.tp}, {"ep", all.ep}})
      if (messages.bytes > 0) bytes[axis] += messages.bytes;
    const double boundaries = (ranks.at.pp > 0 ? 1 : 0) + (ranks.at.pp < layout.pp - 1 ? 1 : 0);
    if (layout.pp > 1) bytes["pp"] += m * boundaries * (traffic.stream_bytes(4) + traffic.stream_bytes(4));
    bytes["weights"] += times.of_weights(layout, ranks.at.pp).bytes;
  }
  return bytes;
}

class LayoutTrafficTest : public ::testing::TestWithParam<Case> {};

TEST_P(LayoutTrafficTest, FormulasCountWhatRanksSend) {
  const DryRunRequest request = request_of(GetParam());
  Bytes real = measured(request), formula = by_formulas(request);
  for (const char* axis : {"cp", "tp", "ep"}) EXPECT_EQ(formula[axis], real[axis]) << axis;
  EXPECT_NEAR(formula["pp"], real["pp"], 0.02 * real["pp"]) << "beside it the results of the step";
}

using parallel::Schedule;
constexpr int64_t kShort = 20;
INSTANTIATE_TEST_SUITE_P(Layouts, LayoutTrafficTest,
                         ::testing::Values(Case{{.dp = 2, .ep = 2}}, Case{{.dp = 2, .ep = 4, .tp = 2}},
                                           Case{{.dp = 1, .cp = 2}}, Case{{.dp = 1, .cp = 3}, kShort},
                                           Case{{.dp = 1, .cp = 4}, kShort, true}, Case{{.dp = 1, .tp = 2}},
                                           Case{{.dp = 1, .tp = 4}, kShort}, Case{{.dp = 1, .tp = 2}, 0, true},
                                           Case{{.dp = 1, .ep = 4, .cp = 2, .tp = 2}},
                                           Case{{.dp = 2, .ep = 2, .pp = 2, .cp = 2, .zero = 2}},
                                           Case{{.dp = 1, .pp = 3, .tp = 2}, kShort},
                                           Case{{.dp = 1, .pp = 2, .cp = 2, .schedule = Schedule::kZeroBubble}}));

// Of a model whose tensors are large beside what pads them.
TEST(LayoutTrafficTest, FormulasCountGradientsAndWeights) {
  for (const parallel::Layout& layout :
       {parallel::Layout{.dp = 2, .zero = 0}, parallel::Layout{.dp = 2, .zero = 1},
        parallel::Layout{.dp = 2, .zero = 2}, parallel::Layout{.dp = 2, .ep = 2, .zero = 2},
        parallel::Layout{.dp = 1, .cp = 2}, parallel::Layout{.dp = 1, .tp = 2, .zero = 2},
        parallel::Layout{.dp = 2, .pp = 2, .zero = 1}, parallel::Layout{.dp = 2, .zero = 3}}) {
    DryRunRequest request = request_of({layout});
    const std::string file = TEMPER_SOURCE_DIR "/examples/demo/config.json";
    request.config = model::parse_config(read_file(file), file);
    request.options.max_tokens = 16;
    Bytes real = measured(request), formula = by_formulas(request);
    const double weights = real["data"] + real["slices"] + real["edp"];
    EXPECT_NEAR(formula["weights"] / weights, 1, 0.08) << layout.to_string();
  }
}

// A rank that is imagined counts what a rank counts that is there.
TEST(LayoutTrafficTest, DryRunsCountTheSame) {
  const DryRunRequest request = request_of({{.dp = 2, .ep = 2, .cp = 1, .tp = 2}});
  const DryRun run = dry_run(request);
  Bytes real = measured(request);
  for (const AxisTraffic& traffic : run.roles.front().traffic)
    if (traffic.axis == "tp" || traffic.axis == "slices")
      EXPECT_EQ(static_cast<double>(4 * traffic.num_bytes), real[traffic.axis]) << traffic.axis;
}

}  // namespace
}  // namespace temper::plan
