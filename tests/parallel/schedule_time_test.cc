#include "parallel/schedule_time.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/file.h"
#include "parallel/draw.h"

namespace temper::parallel {
namespace {

struct Times {
  double f, b, w;
};
constexpr Times kTimes[] = {{1, 1, 1}, {1, 1.25, 0.75}, {1, 1, 0.5}, {0.5, 1.5, 1}};

Timing time_of(Schedule schedule, int64_t stages, int64_t chunks, int64_t m, const Times& t, double latency = 0) {
  const auto v = static_cast<double>(chunks);
  const std::vector<PartTimes> parts(stages * chunks, {t.f / v, t.b / v, t.w / v});
  return simulate(pipeline_lists(schedule, stages, chunks, m), parts, latency);
}

// The formulas of post-training 4.6, where B is ours plus W. A W longer than F delays the next B, and saves no more.
TEST(ScheduleTimeTest, BubblesAreThoseOfTheFormulas) {
  for (const int64_t stages : {2, 3, 4, 8, 16}) {
    const auto waits = static_cast<double>(stages - 1);
    for (const int64_t m : {stages, 2 * stages, 2 * stages + 1, 5 * stages}) {
      for (const Times& t : kTimes) {
        SCOPED_TRACE(fmt::format("{} stages, {} micro-batches, {} {} {}", stages, m, t.f, t.b, t.w));
        EXPECT_NEAR(time_of(Schedule::kOneFOneB, stages, 1, m, t).bubble, waits * (t.f + t.b + t.w), 1e-9);
        for (const int64_t v : {2, 3})
          EXPECT_NEAR(time_of(Schedule::kInterleaved, stages, v, m, t).bubble,
                      waits * (t.f + t.b + t.w) / static_cast<double>(v), 1e-9);
        EXPECT_NEAR(time_of(Schedule::kZeroBubble, stages, 1, m, t).bubble, waits * (t.f + t.b - std::min(t.w, t.f)),
                    1e-9);
      }
    }
  }
}

TEST(ScheduleTimeTest, OneStageNeverWaits) {
  const Timing timing = time_of(Schedule::kOneFOneB, 1, 1, 5, {1, 1, 1});
  EXPECT_EQ(timing.makespan, 15);
  EXPECT_EQ(timing.bubble, 0);
  EXPECT_EQ(timing.bubble_fraction, 0);
}

TEST(ScheduleTimeTest, FractionIsTheShareOfWaiting) {
  // 4 stages, 12 micro-batches: 36 of work, 9 of bubble on each.
  EXPECT_NEAR(time_of(Schedule::kOneFOneB, 4, 1, 12, {1, 1, 1}).bubble_fraction, 9.0 / 45, 1e-12);
}

TEST(ScheduleTimeTest, LatencyIsPaidThereAndBackPerStage) {
  // One micro-batch: there and back through 3 boundaries.
  EXPECT_NEAR(time_of(Schedule::kOneFOneB, 4, 1, 1, {1, 1, 1}, 0.25).makespan, 4 * 3 + 6 * 0.25, 1e-12);
}

TEST(ScheduleTimeTest, TheSlowestPartSetsThePace) {
  const PipelineLists lists = pipeline_lists(Schedule::kOneFOneB, 3, 1, 10);
  const std::vector<PartTimes> parts = {{1, 1, 1}, {2, 2, 2}, {1, 1, 1}};
  const Timing timing = simulate(lists, parts, 0);
  // Stage 1 begins after a forward of stage 0, waits 1 for the first gradient and from then on has always work; its
  // last gradient goes to stage 0, which needs 2.
  EXPECT_EQ(timing.begin[1][1], 1);
  EXPECT_EQ(timing.makespan, 1 + 1 + 10 * 6 + 2);
  EXPECT_EQ(timing.bubble, 4);
}

TEST(ScheduleTimeTest, ThePageDrawsWhatTheListsDo) {
  const std::string page = read_file(TEMPER_SOURCE_DIR "/docs/schedules.md");
  for (const std::string& drawing :
       {draw(pipeline_lists(Schedule::kOneFOneB, 4, 1, 6)), draw(pipeline_lists(Schedule::kInterleaved, 3, 2, 3)),
        draw(pipeline_lists(Schedule::kZeroBubble, 4, 1, 6))})
    EXPECT_THAT(page, testing::HasSubstr(drawing));
}

}  // namespace
}  // namespace temper::parallel
