// Weights, gradients and rows for experts that travel beside computation: the same bits as without, in the plan's
// memory, and errors that leave nobody waiting.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <memory>
#include <span>
#include <string>
#include <tuple>

#include "backend/registry.h"
#include "base/error.h"
#include "comm/world.h"
#include "train/layouts.h"

namespace temper::train {
namespace {

using parallel::Layout;
using parallel::Schedule;
using testing::TrainedCase;

struct OverlapCase {
  Layout layout;
  size_t micro_batches;
  bool exact = false;
  model::Recompute recompute = model::Recompute::kNone;
};

TrainedCase trained_case(const OverlapCase& c) {
  TrainedCase trained;
  trained.config = testing::layout_config(std::max<int64_t>(3, c.layout.pp * c.layout.chunks));
  uint64_t seed = 40;
  for (int step = 0; step < 2; ++step) {
    auto& batches = trained.steps.emplace_back();
    for (size_t m = 0; m < c.micro_batches; ++m, ++seed)
      batches.push_back(testing::pack_row(
          testing::random_documents({9 + static_cast<int64_t>(seed * 7 % 30), 14}, trained.config.vocab_size, seed)));
  }
  trained.options.precision = layers::Precision::kFp32;
  trained.options.logit_chunk = 24;
  trained.options.mtp = true;
  trained.options.indexer = model::IndexerUse::kTrain;
  trained.options.recompute = c.recompute;
  trained.auxiliary = {.mtp = 0.3, .balance = 0.1, .indexer = 0.5, .bias_update_speed = 1e-3};
  trained.exact = c.exact;
  trained.has_expert_rounds = true;
  return trained;
}

class OverlapTest : public ::testing::TestWithParam<OverlapCase> {};

// train_on compares the memory of every rank with its plan.
TEST_P(OverlapTest, GivesTheBitsOfTheSameLayoutWithout) {
  const TrainedCase c = trained_case(GetParam());
  Layout layout = GetParam().layout;
  const testing::Trained without = testing::train_on(layout, c);
  layout.overlap = true;
  const testing::Trained with = testing::train_on(layout, c);
  EXPECT_EQ(testing::difference(with, without).first_bit, "");
  if (layout.zero < 2) {
    EXPECT_EQ(with.planned_bytes, without.planned_bytes);
  } else {
    EXPECT_GT(with.planned_bytes, without.planned_bytes);  // a second layer
  }
}

constexpr auto kBlock = model::Recompute::kBlock, kFull = model::Recompute::kFull;
constexpr Schedule kZb = Schedule::kZeroBubble, kIn = Schedule::kInterleaved;

INSTANTIATE_TEST_SUITE_P(
    Layouts, OverlapTest,
    ::testing::Values(OverlapCase{{.dp = 2, .zero = 0}, 4}, OverlapCase{{.dp = 3, .zero = 1}, 5},
                      OverlapCase{{.dp = 2, .zero = 2}, 4}, OverlapCase{{.dp = 2, .zero = 3}, 4},
                      OverlapCase{{.dp = 3, .zero = 3}, 6, false, kFull},
                      OverlapCase{{.dp = 2, .zero = 3}, 4, true, kBlock}, OverlapCase{{.dp = 2, .zero = 0}, 4, true},
                      OverlapCase{{.dp = 4, .zero = 2}, 7, true}, OverlapCase{{.dp = 4, .ep = 2, .zero = 3}, 8},
                      OverlapCase{{.dp = 4, .ep = 4, .zero = 1}, 8, true},
                      OverlapCase{{.dp = 2, .cp = 2, .zero = 3}, 4}, OverlapCase{{.dp = 2, .tp = 2, .zero = 3}, 4},
                      OverlapCase{{.dp = 1, .ep = 2, .cp = 2, .tp = 2, .zero = 2}, 3},
                      OverlapCase{{.dp = 2, .pp = 2, .zero = 3}, 6},
                      OverlapCase{{.dp = 2, .pp = 2, .zero = 1}, 6, true},
                      OverlapCase{{.dp = 2, .ep = 2, .pp = 2, .zero = 3, .schedule = kZb}, 8},
                      OverlapCase{{.dp = 2, .pp = 2, .zero = 2, .schedule = kZb}, 8, true},
                      OverlapCase{{.dp = 2, .pp = 2, .zero = 3, .schedule = kIn, .chunks = 2}, 8, false, kBlock}),
    [](const auto& info) {
      const OverlapCase& c = info.param;
      std::string name = c.layout.to_string() + (c.exact ? " exact" : "") + " recompute " +
                         std::to_string(static_cast<int>(c.recompute));
      std::replace_if(
          name.begin(), name.end(), [](char ch) { return !std::isalnum(static_cast<unsigned char>(ch)); }, '_');
      return name;
    });

// As temper plan does it: an imagined rank on the null backend takes a step with everything under way in no time.
TEST(OverlapPlanTest, AnImaginedRankHasTheMemoryAndTheCallsOfARealOne) {
  const OverlapCase overlap{{.dp = 2, .ep = 2, .zero = 3, .overlap = true}, 4};
  const TrainedCase c = trained_case(overlap);
  const auto step_on = [&](const backend::Backend& backend, const parallel::Ranks& ranks) {
    model::ModelOptions options = c.options;
    options.max_tokens = 64;
    ranks.place(c.config, 4, options);
    Session session(backend, c.config, options, StateMemory::kNone, &ranks);
    session.model().initialize(session.ctx(), 1);
    const auto objective = objective::make_objective("pretrain", {});
    optim::Adamw adamw({});
    Step step({session.ctx(), session.model(), *objective, session.norm_meter(), adamw, 1.0, c.auxiliary});
    step.compute(c.steps[0], 1e-4);
    const comm::Traffic traffic = ranks.data_beside->traffic();
    // Of rows, as many bytes as they were routed.
    const int64_t num_exchanges = ranks.ep_beside->traffic().num_calls;
    EXPECT_GT(num_exchanges, 0);
    return std::tuple(session.book().total_bytes(), traffic.num_calls, traffic.num_bytes, num_exchanges);
  };
  std::unique_ptr<comm::Comm> imagined;
  const auto plan = step_on(backend::null_backend(), parallel::imagine_mesh(imagined, 0, overlap.layout));
  comm::run_ranks(2, [&](comm::Comm& world) {
    const auto real = step_on(backend::cpu(), parallel::join_mesh(world, overlap.layout));
    EXPECT_EQ(world.rank() == 0 ? real : plan, plan);
  });
}

// Fails at its third micro-batch.
class FailingObjective : public objective::Objective {
 public:
  double count(const layers::MicroBatch& batch) const override { return inner_->count(batch); }
  bool constant_weights(const layers::MicroBatch& batch, double z, std::span<double> dlogp_T) const override {
    return inner_->constant_weights(batch, z, dlogp_T);
  }
  objective::Sums token_weights(const layers::MicroBatch& batch, std::span<const double> logp_T,
                                std::span<const int32_t> best_T, double z, std::span<double> dlogp_T) const override {
    if (++num_seen_ == 3) fail(ErrorCode::kIo, "the disk is full");
    return inner_->token_weights(batch, logp_T, best_T, z, dlogp_T);
  }

 private:
  const std::unique_ptr<objective::Objective> inner_ = objective::make_objective("pretrain", {});
  mutable int64_t num_seen_ = 0;
};

// The sums of its last micro-batch, and perhaps weights of the next layers, are under way: the others wait for it, and
// it would wait for them before its error is known. The deadline is far.
TEST(OverlapFailureTest, ARankThatFailsInAStepIsHeardAtOnce) {
  const OverlapCase overlap{{.dp = 3, .zero = 3, .overlap = true}, 9};
  const TrainedCase c = trained_case(overlap);
  std::array<std::string, 3> errors;
  const auto train = [&](comm::Comm& world) {
    world.set_deadline(600);
    const parallel::Ranks ranks = parallel::join_mesh(world, overlap.layout);
    model::ModelOptions options = c.options;
    options.max_tokens = 64, options.mtp = false;
    ranks.place(c.config, 9, options);
    Session session(backend::cpu(), c.config, options, StateMemory::kNone, &ranks);
    session.model().initialize(session.ctx(), 1);
    const auto usual = objective::make_objective("pretrain", {});
    const FailingObjective failing;
    const objective::Objective* objective = usual.get();
    if (world.rank() == 1) objective = &failing;
    optim::Adamw adamw({});
    Step step({session.ctx(), session.model(), *objective, session.norm_meter(), adamw, 1.0});
    step.compute(c.steps[0], 1e-4);
  };
  const auto train_and_tell = [&](comm::Comm& world) {
    try {
      train(world);
    } catch (const Error& error) {
      errors[static_cast<size_t>(world.rank())] = error.what();
      throw;
    }
  };
  EXPECT_THROW(comm::run_ranks(3, train_and_tell), Error);
  EXPECT_EQ(errors[1], "the disk is full");
  for (const size_t r : {0, 2}) EXPECT_EQ(errors[r], "rank 1 failed: loss of micro-batch 8: the disk is full");
}

}  // namespace
}  // namespace temper::train
