// Whatever the layout of ranks, the same losses, gradients and weights as one rank.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "comm/world.h"
#include "parallel/stages.h"
#include "train/layouts.h"
#include "train/random_layouts.h"

namespace temper::train {
namespace {

using parallel::Layout;
using parallel::Schedule;
using testing::difference;
using testing::train_on;
using testing::Trained;
using testing::TrainedCase;

struct LayoutCase {
  Layout layout;
  size_t micro_batches;
};

std::string name_of(const LayoutCase& c) {
  std::string name = c.layout.to_string() + ", " + std::to_string(c.micro_batches) + " micro-batches";
  std::replace_if(
      name.begin(), name.end(), [](char ch) { return !std::isalnum(static_cast<unsigned char>(ch)); }, '_');
  return name;
}

class LayoutTest : public ::testing::TestWithParam<LayoutCase> {};

// All pipelines below of more than two stages have some that begin or end within a layer.
TEST(LayersOfTheTinyModel, AreCutByPipelines) {
  const parallel::SiteCosts costs = parallel::forward_flops(testing::layout_config(), 64, true);
  for (const int64_t num_stages : {3, 4, 5, 6}) {
    const auto parts = split_sites(costs, num_stages, 1);
    EXPECT_TRUE(std::any_of(parts.begin(), parts.end(), [](const auto& part) { return part.end % 2 == 1; }))
        << num_stages;
  }
}

TEST_P(LayoutTest, GivesTheAnswerOfOneRank) {
  const TrainedCase c = testing::layout_case(GetParam().micro_batches);
  const Trained one = testing::train_alone(c), many = train_on(GetParam().layout, c);
  const auto d = difference(many, one);
  EXPECT_LE(d.first_step, 1e-6);
  EXPECT_LE(d.curve, 1e-5);
  EXPECT_LE(d.gradient, 1e-6);
  EXPECT_LE(d.weight, 1e-5);
}

TEST_P(LayoutTest, GivesTheBitsOfOneRankInExactMode) {
  TrainedCase c = testing::layout_case(GetParam().micro_batches);
  c.exact = true;
  const Trained one = testing::train_alone(c), many = train_on(GetParam().layout, c);
  EXPECT_EQ(difference(many, one).first_bit, "");
}

INSTANTIATE_TEST_SUITE_P(
    Pipeline, LayoutTest,
    ::testing::Values(LayoutCase{{.dp = 1, .pp = 2, .zero = 0}, 4}, LayoutCase{{.dp = 1, .pp = 3, .zero = 1}, 4},
                      LayoutCase{{.dp = 2, .pp = 2, .zero = 1}, 8}, LayoutCase{{.dp = 2, .pp = 2, .zero = 3}, 4},
                      LayoutCase{{.dp = 4, .pp = 2, .zero = 2}, 8},
                      LayoutCase{{.dp = 2, .pp = 2, .zero = 2, .schedule = Schedule::kZeroBubble}, 8},
                      LayoutCase{{.dp = 1, .pp = 6, .zero = 0}, 4}, LayoutCase{{.dp = 2, .pp = 4, .zero = 3}, 4},
                      LayoutCase{{.dp = 1, .pp = 5, .zero = 1, .schedule = Schedule::kZeroBubble}, 8}),
    [](const auto& info) { return name_of(info.param); });

// Documents are cut over ranks; most of a micro-batch's 35 to 74 rows read rows of another rank. Bits are not promised:
// a rank's sums are of its rows.
class CutDocumentsTest : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(CutDocumentsTest, GiveTheAnswerOfOneRank) {
  TrainedCase c = testing::layout_case(GetParam().micro_batches);
  for (const auto recompute : {model::Recompute::kNone, model::Recompute::kFull}) {
    if (recompute != model::Recompute::kNone && GetParam().layout.schedule == Schedule::kZeroBubble) continue;
    for (const auto indexer : {model::IndexerUse::kTrain, model::IndexerUse::kWarmUp}) {
      c.options.recompute = recompute, c.options.indexer = indexer;
      const Trained one = testing::train_alone(c), many = train_on(GetParam().layout, c);
      const auto d = difference(many, one);
      EXPECT_LE(d.first_step, 1e-6);
      EXPECT_LE(d.auxiliary, 1e-6);
      EXPECT_LE(d.curve, 1e-5);
      EXPECT_LE(d.gradient, 1e-6);
      // AdamW's first steps are as long for a gradient of nearly 0 whose sign is a matter of rounding.
      EXPECT_LE(d.weight, 2e-5);
      EXPECT_TRUE(d.same_loads);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, CutDocumentsTest,
    ::testing::Values(LayoutCase{{.dp = 1, .cp = 2, .zero = 0}, 2}, LayoutCase{{.dp = 1, .cp = 4, .zero = 1}, 2},
                      LayoutCase{{.dp = 2, .cp = 2, .zero = 1}, 3},
                      LayoutCase{{.dp = 1, .ep = 2, .cp = 2, .zero = 1}, 2},
                      LayoutCase{{.dp = 2, .ep = 4, .cp = 2, .zero = 2}, 2},
                      LayoutCase{{.dp = 1, .pp = 2, .cp = 2, .zero = 0}, 3},
                      LayoutCase{{.dp = 1, .pp = 3, .cp = 2, .zero = 1, .schedule = Schedule::kZeroBubble}, 4},
                      LayoutCase{{.dp = 1, .pp = 4, .cp = 2, .zero = 2}, 3},
                      LayoutCase{{.dp = 1, .cp = 2, .zero = 3}, 2}, LayoutCase{{.dp = 1, .cp = 8, .zero = 3}, 2}),
    [](const auto& info) { return name_of(info.param); });

// Every chunk takes the micro-batches in one order, whatever the schedule.
class ScheduleTest : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(ScheduleTest, GivesTheBitsOfOneFOneBInThePlansMemory) {
  for (const bool exact : {false, true}) {
    TrainedCase c = testing::layout_case(GetParam().micro_batches);
    c.config = testing::layout_config(3);  // whose parts are halves of layers for the most part
    c.exact = exact;
    c.has_expert_rounds = true;  // further rounds, whose tensors are not kept
    Layout plain = GetParam().layout;
    plain.schedule = Schedule::kOneFOneB, plain.chunks = 1;
    const Trained ours = train_on(GetParam().layout, c);
    EXPECT_EQ(difference(ours, train_on(plain, c)).first_bit, "") << "exact: " << exact;
    EXPECT_EQ(ours.planned_bytes, ours.allocated_bytes);
  }
}

constexpr Schedule kZb = Schedule::kZeroBubble;

INSTANTIATE_TEST_SUITE_P(ZeroBubble, ScheduleTest,
                         ::testing::Values(LayoutCase{{.dp = 1, .pp = 2, .zero = 0, .schedule = kZb}, 4},
                                           LayoutCase{{.dp = 1, .pp = 4, .zero = 1, .schedule = kZb}, 3},
                                           LayoutCase{{.dp = 2, .pp = 2, .zero = 3, .schedule = kZb}, 7},
                                           LayoutCase{{.dp = 2, .ep = 2, .pp = 2, .zero = 1, .schedule = kZb}, 6},
                                           LayoutCase{{.dp = 2, .ep = 2, .pp = 3, .zero = 2, .schedule = kZb}, 8},
                                           LayoutCase{{.dp = 4, .ep = 2, .pp = 2, .zero = 3, .schedule = kZb}, 12}),
                         [](const auto& info) { return name_of(info.param); });

constexpr Schedule kIl = Schedule::kInterleaved;

// Two stages exchange both kinds of messages both ways; odd numbers of micro-batches make groups of unequal size.
INSTANTIATE_TEST_SUITE_P(
    Interleaved, ScheduleTest,
    ::testing::Values(LayoutCase{{.dp = 1, .pp = 2, .zero = 0, .schedule = kIl, .chunks = 2}, 5},
                      LayoutCase{{.dp = 1, .pp = 2, .zero = 1, .schedule = kIl, .chunks = 3}, 4},
                      LayoutCase{{.dp = 1, .pp = 3, .zero = 1, .schedule = kIl, .chunks = 2}, 7},
                      LayoutCase{{.dp = 2, .pp = 2, .zero = 3, .schedule = kIl, .chunks = 2}, 6},
                      LayoutCase{{.dp = 2, .ep = 2, .pp = 2, .zero = 2, .schedule = kIl, .chunks = 2}, 5}),
    [](const auto& info) { return name_of(info.param); });

TEST_P(ScheduleTest, GivesTheBitsOfOneFOneBWhereActivationsAreRebuiltOrIsRefused) {
  for (const auto recompute : {model::Recompute::kBlock, model::Recompute::kFull}) {
    TrainedCase c = testing::layout_case(GetParam().micro_batches, 1);
    c.config = testing::layout_config(8);
    c.options.recompute = recompute;
    if (GetParam().layout.schedule == kZb) {
      EXPECT_THROW(train_on(GetParam().layout, c), Error);
      continue;
    }
    Layout plain = GetParam().layout;
    plain.schedule = Schedule::kOneFOneB, plain.chunks = 1;
    EXPECT_EQ(difference(train_on(GetParam().layout, c), train_on(plain, c)).first_bit, "");
  }
}

class TwentyStepsTest : public ::testing::TestWithParam<Layout> {};

TEST_P(TwentyStepsTest, GiveTheCurveOfOneRankAndInExactModeItsBits) {
  TrainedCase c = testing::layout_case(8, 20);
  const auto d = difference(train_on(GetParam(), c), testing::train_alone(c));
  EXPECT_LE(d.first_step, 1e-6);
  EXPECT_LE(d.gradient, 1e-6);
  EXPECT_LE(d.loss_curve, 1e-5);
  c.exact = true;
  EXPECT_EQ(difference(train_on(GetParam(), c), testing::train_alone(c)).first_bit, "");
}

INSTANTIATE_TEST_SUITE_P(Layouts, TwentyStepsTest,
                         ::testing::Values(Layout{.dp = 2, .zero = 1}, Layout{.dp = 4, .zero = 3},
                                           Layout{.dp = 8, .zero = 0}, Layout{.dp = 2, .ep = 2, .zero = 1},
                                           Layout{.dp = 4, .ep = 4, .zero = 2}, Layout{.dp = 1, .pp = 2, .zero = 0},
                                           Layout{.dp = 4, .ep = 2, .pp = 2, .zero = 1}));

class RandomLayoutTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(RandomLayoutTest, GivesTheAnswerOfOneRank) {
  constexpr int64_t kWorlds[] = {2, 3, 4, 6, 8};
  const int64_t num_ranks = kWorlds[GetParam() % std::size(kWorlds)];
  const auto c = testing::random_case(GetParam(), num_ranks);
  std::string wrong;
  comm::run_ranks(num_ranks, [&](comm::Comm& world) {
    const std::string found = testing::check_case(world, c);
    if (world.rank() == 0) wrong = found;
  });
  EXPECT_EQ(wrong, "");
}

INSTANTIATE_TEST_SUITE_P(Forty, RandomLayoutTest, ::testing::Range<uint64_t>(0, 40));

// Heads, output groups and words are cut, and rows in between: in float64 nothing but rounding is left.
class TensorParallelTest : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(TensorParallelTest, GivesTheAnswerOfOneRank) {
  TrainedCase c = testing::layout_case(GetParam().micro_batches);
  c.options.recompute = GetParam().layout.zero == 1 ? model::Recompute::kFull : model::Recompute::kNone;
  const auto d = difference(train_on(GetParam().layout, c), testing::train_alone(c));
  EXPECT_LE(d.first_step, 1e-6);
  EXPECT_LE(d.gradient, 1e-6);
  EXPECT_LE(d.curve, 1e-5);
  c.options.precision = layers::Precision::kFp64;
  const auto exact = difference(train_on(GetParam().layout, c), testing::train_alone(c));
  EXPECT_LE(std::max({exact.first_step, exact.gradient, exact.auxiliary, exact.bias}), 1e-13);
  EXPECT_LE(exact.worst_gradient, 1e-11) << exact.worst_parameter;
  EXPECT_LE(std::max(exact.curve, exact.weight), 1e-12);
  EXPECT_TRUE(exact.same_loads);
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, TensorParallelTest,
    ::testing::Values(
        LayoutCase{{.dp = 1, .tp = 2, .zero = 0}, 3}, LayoutCase{{.dp = 1, .tp = 4, .zero = 1}, 3},
        LayoutCase{{.dp = 2, .tp = 2, .zero = 1}, 3}, LayoutCase{{.dp = 1, .ep = 2, .tp = 2, .zero = 2}, 3},
        LayoutCase{{.dp = 2, .ep = 4, .tp = 2, .zero = 3}, 4}, LayoutCase{{.dp = 1, .cp = 2, .tp = 2, .zero = 1}, 3},
        LayoutCase{{.dp = 2, .ep = 4, .cp = 2, .tp = 2, .zero = 3}, 3},
        LayoutCase{{.dp = 1, .pp = 2, .tp = 2, .zero = 0}, 4}, LayoutCase{{.dp = 1, .pp = 4, .tp = 2, .zero = 1}, 4},
        LayoutCase{{.dp = 1, .pp = 2, .tp = 2, .zero = 2, .schedule = Schedule::kZeroBubble}, 4}),
    [](const auto& info) { return name_of(info.param); });

// Also with fewer micro-batches than ranks, some of which then have an empty one.
INSTANTIATE_TEST_SUITE_P(Experts, LayoutTest,
                         ::testing::Values(LayoutCase{{.dp = 2, .ep = 2, .zero = 0}, 4},
                                           LayoutCase{{.dp = 4, .ep = 2, .zero = 1}, 6},
                                           LayoutCase{{.dp = 4, .ep = 4, .zero = 2}, 3},
                                           LayoutCase{{.dp = 2, .ep = 2, .pp = 2, .zero = 3}, 4},
                                           LayoutCase{{.dp = 4, .ep = 2, .pp = 2, .zero = 1}, 8},
                                           LayoutCase{{.dp = 2, .ep = 2, .pp = 4, .zero = 2}, 4}),
                         [](const auto& info) { return name_of(info.param); });

INSTANTIATE_TEST_SUITE_P(DataParallel, LayoutTest,
                         ::testing::Values(LayoutCase{{.dp = 2, .zero = 0}, 3}, LayoutCase{{.dp = 2, .zero = 1}, 4},
                                           LayoutCase{{.dp = 2, .zero = 2}, 4}, LayoutCase{{.dp = 2, .zero = 3}, 4},
                                           LayoutCase{{.dp = 4, .zero = 1}, 8}, LayoutCase{{.dp = 8, .zero = 3}, 8}),
                         [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace temper::train
