// Which curves a panel holds, where their points lie, and how they are smoothed and thinned.
#include "report/curves.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace temper::report {
namespace {

using testing::ElementsAre;
using testing::Pair;

NamedRun run(const std::string& name, const std::string& lines) { return {name, parse_metrics(lines, name)}; }

TEST(Curves, RunsOfDifferentLengthAndMissingFields) {
  const std::vector<NamedRun> runs = {
      run("a", "{\"step\":1,\"loss\":3,\"grad_norm\":1}\n{\"step\":2,\"loss\":2}\n{\"step\":2,\"eval_loss\":2.5}\n"),
      run("b", "{\"step\":1,\"loss\":4}\n")};
  const Panel loss = make_panel(runs, "loss", XAxis::kStep);
  ASSERT_EQ(loss.curves.size(), 3);
  EXPECT_EQ(loss.curves[0].title, "a");
  EXPECT_THAT(loss.curves[0].points, ElementsAre(Pair(1, 3), Pair(2, 2)));
  EXPECT_EQ(loss.curves[1].title, "a, held out");
  EXPECT_EQ(loss.curves[1].color, loss.curves[0].color);
  EXPECT_EQ(loss.curves[1].style, CurveStyle::kDots);
  EXPECT_EQ(loss.curves[2].title, "b");
  EXPECT_NE(loss.curves[2].color, loss.curves[0].color);
  EXPECT_EQ(make_panel(runs, "grad_norm", XAxis::kStep).curves.size(), 1);
  EXPECT_TRUE(make_panel(runs, "mfu", XAxis::kStep).curves.empty());
}

TEST(Curves, HeldOutPointsStandAtTheTokensOfTheStepBefore) {
  const std::vector<NamedRun> runs = {
      run("a",
          "{\"step\":0,\"eval_loss\":9}\n{\"step\":1,\"loss\":3,\"num_tokens\":3000}\n"
          "{\"step\":2,\"loss\":2,\"num_tokens\":6000}\n{\"step\":2,\"eval_loss\":2.5}\n")};
  const Panel panel = make_panel(runs, "loss", XAxis::kTokens);
  EXPECT_EQ(panel.x_title, "thousands of tokens");
  EXPECT_THAT(panel.curves[0].points, ElementsAre(Pair(3, 3), Pair(6, 2)));
  EXPECT_THAT(panel.curves[1].points, ElementsAre(Pair(0, 9), Pair(6, 2.5)));
}

TEST(Curves, TimeCountsFromTheFirstLineOfEachRun) {
  const std::vector<NamedRun> runs = {
      run("a", "{\"step\":1,\"loss\":3,\"wall_time\":1000}\n{\"step\":2,\"loss\":2,\"wall_time\":1600}\n"),
      run("b", "{\"step\":1,\"loss\":3,\"wall_time\":5000}\n")};
  const Panel panel = make_panel(runs, "loss", XAxis::kWallTime);
  EXPECT_EQ(panel.x_title, "minutes since the start of the run");
  EXPECT_THAT(panel.curves[0].points, ElementsAre(Pair(0, 3), Pair(10, 2)));
  EXPECT_THAT(panel.curves[1].points, ElementsAre(Pair(0, 3)));
}

TEST(Curves, AnAxisThatARunDoesNotHaveIsRefused) {
  const std::vector<NamedRun> runs = {run("a", "{\"step\":1,\"loss\":3}\n")};
  EXPECT_THROW(make_panel(runs, "loss", XAxis::kTokens), Error);
  EXPECT_THROW(make_panel(runs, "loss", XAxis::kWallTime), Error);
}

TEST(Curves, TheScaleIsLogarithmicWhereValuesArePositiveAndFarApart) {
  const auto panel = [](const std::string& field, const std::string& values) {
    return make_panel({run("a", values)}, field, XAxis::kStep);
  };
  EXPECT_TRUE(panel("loss", "{\"step\":1,\"loss\":8}\n{\"step\":2,\"loss\":1}\n").log_y);
  EXPECT_FALSE(panel("loss", "{\"step\":1,\"loss\":8}\n{\"step\":2,\"loss\":2}\n").log_y);
  EXPECT_FALSE(panel("loss", "{\"step\":1,\"loss\":8}\n{\"step\":2,\"loss\":0}\n").log_y);
  EXPECT_FALSE(panel("learning_rate", "{\"step\":1,\"learning_rate\":8}\n{\"step\":2,\"learning_rate\":1}\n").log_y);
}

TEST(Curves, LongCurvesAreFaintUnderTheirRunningMean) {
  std::string lines;
  for (int step = 1; step <= 100; ++step) lines += "{\"step\":" + std::to_string(step) + ",\"loss\":2}\n";
  const Panel panel = make_panel({run("a", lines)}, "loss", XAxis::kStep);
  ASSERT_EQ(panel.curves.size(), 2);
  EXPECT_EQ(panel.curves[0].style, CurveStyle::kFaint);
  EXPECT_EQ(panel.curves[1].style, CurveStyle::kLine);
  EXPECT_EQ(panel.curves[0].title, "") << "one entry a run in the legend";
}

TEST(Curves, RunningMeanIsSymmetricButAtTheEnd) {
  EXPECT_THAT(running_mean({{1, 3}, {2, 6}, {3, 0}, {4, 9}}, 3),
              ElementsAre(Pair(1, 3), Pair(2, 3), Pair(3, 5), Pair(4, 4.5)));
}

TEST(Curves, ThinningKeepsEverySpike) {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 10000; ++i) points.emplace_back(i, i == 777 ? 50 : i == 5001 ? -50 : 1);
  const auto few = thinned(points, 10);
  EXPECT_LE(few.size(), 20);
  EXPECT_THAT(few, testing::Contains(Pair(777, 50)));
  EXPECT_THAT(few, testing::Contains(Pair(5001, -50)));
  EXPECT_TRUE(std::is_sorted(few.begin(), few.end()));
}

TEST(Curves, RunsAreNamedByAsMuchOfTheirPathsAsTellsThemApart) {
  const std::filesystem::path fixture = TEMPER_SOURCE_DIR "/tests/fixtures/events";
  const auto one = read_runs({fixture});
  EXPECT_EQ(one[0].name, "events");
  EXPECT_EQ(read_runs({fixture / "metrics.jsonl"})[0].name, "events");
  const auto two = read_runs({fixture / "metrics.jsonl", fixture / "../events/events.out.tfevents.temper"});
  EXPECT_EQ(two[0].name, "metrics.jsonl");
  EXPECT_EQ(two[1].name, "events.out.tfevents.temper");
  const auto same = read_runs({fixture, fixture});
  EXPECT_EQ(same[0].name, same[1].name) << "the same run twice cannot be told apart";
}

}  // namespace
}  // namespace temper::report
