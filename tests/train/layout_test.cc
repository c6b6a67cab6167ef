// Whatever the layout of ranks, the same losses, gradients and weights as one rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "comm/world.h"
#include "parallel/stages.h"
#include "train/incident.h"
#include "train/layouts.h"
#include "train/random_layouts.h"

namespace temper::train {
namespace {

using parallel::Layout;
using parallel::Schedule;
using ::testing::AllOf;
using testing::difference;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::train_on;
using testing::Trained;
using testing::TrainedCase;

// Steps of micro-batches of unequal lengths: documents on both sides of the window and the compression rates, one
// micro-batch without any target.
TrainedCase tiny_case(size_t micro_batches_per_step, int num_steps = 3) {
  TrainedCase c;
  uint64_t seed = 20;
  for (int step = 0; step < num_steps; ++step) {
    auto& batches = c.steps.emplace_back();
    for (size_t m = 0; m < micro_batches_per_step; ++m, ++seed) {
      const int64_t length = 9 + static_cast<int64_t>(seed * 7 % 40);
      batches.push_back(
          testing::pack_row(testing::random_documents({length, 5, 21}, testing::tiny_config().vocab_size, seed)));
    }
    std::fill(batches[1].targets.begin(), batches[1].targets.end(), -1);
    std::fill(batches[1].weights.begin(), batches[1].weights.end(), 0.0f);
  }
  c.options.precision = layers::Precision::kFp32;
  c.options.logit_chunk = 24;
  c.options.mtp = true;
  c.options.indexer = model::IndexerUse::kTrain;
  c.auxiliary = {.mtp = 0.3, .balance = 0.1, .indexer = 0.5, .bias_update_speed = 1e-3};
  return c;
}

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
  const TrainedCase c = tiny_case(GetParam().micro_batches);
  const Trained one = testing::train_alone(c), many = train_on(GetParam().layout, c);
  const auto d = difference(many, one);
  EXPECT_LE(d.first_step, 1e-6);
  EXPECT_LE(d.curve, 1e-5);
  EXPECT_LE(d.gradient, 1e-6);
  EXPECT_LE(d.weight, 1e-5);
}

TEST_P(LayoutTest, GivesTheBitsOfOneRankInExactMode) {
  TrainedCase c = tiny_case(GetParam().micro_batches);
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

// Every chunk takes the micro-batches in one order, whatever the schedule.
// Documents are cut over ranks; most of a micro-batch's 35 to 74 rows read rows of another rank. Bits are not promised:
// a rank's sums are of its rows.
class CutDocumentsTest : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(CutDocumentsTest, GiveTheAnswerOfOneRank) {
  TrainedCase c = tiny_case(GetParam().micro_batches);
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

class ScheduleTest : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(ScheduleTest, GivesTheBitsOfOneFOneBInThePlansMemory) {
  for (const bool exact : {false, true}) {
    TrainedCase c = tiny_case(GetParam().micro_batches);
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
    TrainedCase c = tiny_case(GetParam().micro_batches, 1);
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
  TrainedCase c = tiny_case(8, 20);
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

// What only one rank finds is known to all, and nobody is waited for in vain.
class PoisonedRankTest : public ::testing::TestWithParam<Layout> {};

TEST_P(PoisonedRankTest, ALossThatIsNotFiniteIsThatOfAllRanks) {
  const TrainedCase c = tiny_case(4);
  comm::run_ranks(GetParam().dp * GetParam().pp, [&](comm::Comm& world) {
    world.set_deadline(20);
    const parallel::Ranks ranks = parallel::join_mesh(world, GetParam());
    model::ModelOptions options = c.options;
    options.max_tokens = 128;
    ranks.place(testing::layout_config(), 4, options);
    Session session(backend_for(options.precision), testing::layout_config(), options, StateMemory::kNone, &ranks);
    layers::Ctx& ctx = session.ctx();
    session.model().initialize(ctx, 3);
    // Of one rank: what its first norm makes of every token.
    const bool is_poisoned = world.rank() == 0;
    for (const layers::Parameter* p : session.model().parameters())
      if (is_poisoned && p->name.ends_with(".input_layernorm.weight"))
        ctx.ops.fill(ctx.stream, p->owned_value(), std::numeric_limits<double>::quiet_NaN());
    const auto objective = objective::make_objective("sft", {});
    optim::Adamw adamw({});
    Step step({ctx, session.model(), *objective, session.norm_meter(), adamw, 1.0, c.auxiliary});
    const StepResult& result = step.compute(c.steps[0], 1e-3);
    EXPECT_FALSE(result.finite());
    EXPECT_TRUE(std::isnan(result.loss)) << result.loss;
    EXPECT_EQ(result.norms.first_nonfinite, "model.embed_tokens.weight");
    data::LoaderStep data;
    data.micro_batches = c.steps[0];
    const std::string found =
        find_together({{ctx, session.model(), *objective, session.norm_meter(), adamw, 1.0, c.auxiliary},
                       session.book(),
                       data,
                       nullptr,
                       1e-3},
                      world);
    EXPECT_THAT(found, AllOf(StartsWith("on rank 0: model.layers.0.input_layernorm.weight"),
                             HasSubstr("[0] = nan is not finite; read as w_D of rmsnorm_forward in layer 0, forward")));
  });
}

// The other rank gets what these experts make of its rows, and reads it later.
TEST(PoisonedExpertTest, TheRankThatHasItIsNamed) {
  const TrainedCase c = tiny_case(4);
  const Layout layout{.dp = 2, .ep = 2, .zero = 0};
  comm::run_ranks(2, [&](comm::Comm& world) {
    const parallel::Ranks ranks = parallel::join_mesh(world, layout);
    model::ModelOptions options = c.options;
    options.max_tokens = 128;
    ranks.place(testing::layout_config(), 4, options);
    Session session(backend_for(options.precision), testing::layout_config(), options, StateMemory::kNone, &ranks);
    session.model().initialize(session.ctx(), 3);
    for (const layers::Parameter* p : session.model().parameters())
      if (world.rank() == 1 && p->name == "model.layers.2.mlp.experts.down_proj")
        session.ctx().ops.fill(session.ctx().stream, p->value, std::numeric_limits<double>::quiet_NaN());
    const auto objective = objective::make_objective("sft", {});
    optim::Adamw adamw({});
    data::LoaderStep data;
    data.micro_batches = c.steps[0];
    const StepParts parts{session.ctx(), session.model(), *objective, session.norm_meter(), adamw, 1.0, c.auxiliary};
    EXPECT_THAT(find_together({parts, session.book(), data, nullptr, 1e-3}, world),
                AllOf(StartsWith("on rank 1: model.layers.2.mlp.experts.down_proj[0, 0, 0] = nan"),
                      HasSubstr("in layer 2, forward of micro-batch ")));
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, PoisonedRankTest,
                         ::testing::Values(Layout{.dp = 2, .zero = 1}, Layout{.dp = 2, .ep = 2, .zero = 3},
                                           Layout{.dp = 1, .pp = 2}, Layout{.dp = 2, .ep = 2, .pp = 2}));

INSTANTIATE_TEST_SUITE_P(Forty, RandomLayoutTest, ::testing::Range<uint64_t>(0, 40));

// Heads, output groups and words are cut, and rows in between: in float64 nothing but rounding is left.
class TensorParallelTest : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(TensorParallelTest, GivesTheAnswerOfOneRank) {
  TrainedCase c = tiny_case(GetParam().micro_batches);
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
