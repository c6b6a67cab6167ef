#include "train/guard.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace temper::train {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A guard that has seen `num_steps` ordinary steps.
Guard seasoned(GuardOptions options, int64_t num_steps = 100) {
  Guard guard(options);
  for (int64_t i = 0; i < num_steps; ++i) guard.judge(2 + 0.1 * (i % 3), 1), guard.updated();
  return guard;
}

GuardAction bad_step(Guard& guard, int64_t step, int64_t rollback_to) {
  return guard.act(guard.judge(kNan, 1), step, rollback_to);
}

TEST(Guard, SkipsWhatIsNotFiniteAndReportsSpikesByDefault) {
  Guard guard = seasoned({});
  EXPECT_EQ(guard.act(guard.judge(100, 1), 101, -1), GuardAction::kGoOn);
  EXPECT_EQ(guard.num_skipped(), 0);
  EXPECT_EQ(bad_step(guard, 102, -1), GuardAction::kSkipStep);
  EXPECT_EQ(guard.num_skipped(), 1);
}

TEST(Guard, TheThirdSkipInARowRollsBackWhereThereIsAState) {
  Guard guard = seasoned({});
  const auto state = guard.to_json();
  EXPECT_EQ(bad_step(guard, 101, 90), GuardAction::kSkipStep);
  EXPECT_EQ(bad_step(guard, 102, 90), GuardAction::kSkipStep);
  EXPECT_EQ(Guard(guard).act({Anomaly::kNonFinite}, 103, -1), GuardAction::kStop);
  EXPECT_EQ(bad_step(guard, 103, 90), GuardAction::kRollback);
  // All three are left out the second time, each once.
  Guard again({});
  again.from_json(state);
  again.carry_on(guard);
  EXPECT_FALSE(again.leaves_out(100));
  for (const int64_t step : {101, 102, 103}) EXPECT_TRUE(again.leaves_out(step));
  EXPECT_FALSE(again.leaves_out(103));
  EXPECT_EQ(again.num_skipped(), 3);
  EXPECT_EQ(again.num_rollbacks(), 1);
}

TEST(Guard, SkipsThatAreNotInARowAreToleratedTenTimesInAThousandSteps) {
  Guard guard = seasoned({});
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(bad_step(guard, 100 + 50 * i, 0), GuardAction::kSkipStep);
    guard.updated();
  }
  EXPECT_EQ(Guard(guard).act({Anomaly::kNonFinite}, 1101, 0), GuardAction::kSkipStep);  // the first is long ago
  EXPECT_EQ(bad_step(guard, 900, 0), GuardAction::kRollback);
}

TEST(Guard, StopsAfterThreeRollbacksToOneState) {
  GuardOptions options;
  options.on_nonfinite = GuardAction::kRollback;
  Guard guard = seasoned(options);
  for (const int64_t step : {101, 102, 103}) EXPECT_EQ(bad_step(guard, step, 90), GuardAction::kRollback);
  EXPECT_EQ(Guard(guard).act({Anomaly::kNonFinite}, 104, 96), GuardAction::kRollback);
  EXPECT_EQ(bad_step(guard, 104, 90), GuardAction::kStop);
}

TEST(Guard, RollbackWithoutAStateStops) {
  GuardOptions options;
  options.on_spike = GuardAction::kRollback;
  Guard guard = seasoned(options);
  EXPECT_EQ(guard.act(guard.judge(100, 1), 101, -1), GuardAction::kStop);
}

TEST(Guard, InvestigatesTheFirstOfSpikesInARow) {
  Guard guard = seasoned({});
  EXPECT_TRUE(guard.investigates(guard.judge(100, 1), 101));
  EXPECT_FALSE(guard.investigates(guard.judge(100, 1), 102));
  EXPECT_FALSE(guard.investigates(guard.judge(2, 1), 103));
  EXPECT_TRUE(guard.investigates(guard.judge(100, 1), 104));
  EXPECT_TRUE(guard.investigates(guard.judge(kNan, 1), 105));
  EXPECT_TRUE(guard.investigates(guard.judge(kNan, 1), 106));
}

TEST(Guard, SpikesThatChangeNothingAreInvestigatedNowAndThen) {
  GuardOptions skips;
  skips.on_spike = GuardAction::kSkipStep;
  Guard reporting = seasoned({}), skipping = seasoned(skips);
  for (Guard* guard : {&reporting, &skipping}) guard->count_incident(101);
  const int64_t later = 101 + Guard::kReportDistance;
  EXPECT_FALSE(reporting.investigates(reporting.judge(100, 1), later - 1));
  EXPECT_TRUE(skipping.investigates(skipping.judge(100, 1), later - 1));
  EXPECT_TRUE(reporting.investigates(reporting.judge(kNan, 1), later - 1));
  reporting.judge(2, 1);
  Guard resumed({});
  resumed.from_json(reporting.to_json());
  EXPECT_TRUE(resumed.investigates(resumed.judge(100, 1), later));
}

TEST(Guard, StateIsExactAndRollbackRestoresTheStatistics) {
  Guard guard = seasoned({});
  const auto early = guard.to_json();
  bad_step(guard, 101, 50);
  for (int i = 0; i < 40; ++i) guard.judge(2 + 0.01 * i, 1.5);
  Guard restored({});
  restored.from_json(nlohmann::ordered_json::parse(guard.to_json().dump()));
  EXPECT_EQ(restored.to_json().dump(), guard.to_json().dump());

  Guard rolled_back({});
  rolled_back.from_json(early);
  rolled_back.carry_on(guard);
  EXPECT_EQ(rolled_back.num_skipped(), 0);
  EXPECT_EQ(rolled_back.to_json()["detector"], early["detector"]);
  EXPECT_THROW(rolled_back.from_json({{"num_skipped", 1}}), Error);
}

}  // namespace
}  // namespace temper::train
