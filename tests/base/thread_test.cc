#include "base/thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"

namespace temper {
namespace {

// Runs each test with teams of several sizes and puts the default back.
class ThreadTeam : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_num_threads(GetParam()); }
  void TearDown() override { set_num_threads(default_); }
  const int default_ = num_threads();
};

TEST_P(ThreadTeam, EveryIndexOnce) {
  EXPECT_EQ(num_threads(), GetParam());
  for (const int64_t count : {0, 1, 2, 3, 7, 1000})
    for (const int64_t grain : {1, 5, 5000}) {
      std::vector<std::atomic<int>> touched(static_cast<size_t>(count));
      parallel_for(count, grain, [&](int64_t begin, int64_t end, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, GetParam());
        for (int64_t i = begin; i < end; ++i) ++touched[static_cast<size_t>(i)];
      });
      for (const auto& times : touched) EXPECT_EQ(times, 1);
    }
}

TEST_P(ThreadTeam, ThePartitionIsAFunctionOfCountGrainAndTeam) {
  const auto partition = [] {
    std::vector<std::pair<int64_t, int64_t>> parts(static_cast<size_t>(num_threads()), {-1, -1});
    parallel_for(1001, 10, [&](int64_t begin, int64_t end, int thread) {
      parts[static_cast<size_t>(thread)] = {begin, end};
    });
    return parts;
  };
  const auto first = partition();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(partition(), first);
}

TEST_P(ThreadTeam, SmallRangesStayOnOneThread) {
  std::atomic<int> calls{0};
  parallel_for(9, 10, [&](int64_t, int64_t, int) { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST_P(ThreadTeam, AnInnerCallRunsOnItsOwnThread) {
  std::atomic<int64_t> sum{0};
  parallel_for(8, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      parallel_for(100, 1, [&](int64_t inner_begin, int64_t inner_end, int thread) {
        EXPECT_EQ(thread, 0);
        sum += inner_end - inner_begin;
      });
  });
  EXPECT_EQ(sum, 800);
}

TEST_P(ThreadTeam, AnExceptionReachesTheCallerAndTheTeamLivesOn) {
  const auto throwing = [](int64_t begin, int64_t end, int) {
    if (begin <= 99 && 99 < end) throw std::runtime_error("part with 99");
  };
  for (int i = 0; i < 20; ++i) EXPECT_THROW(parallel_for(100, 1, throwing), std::runtime_error);
  std::atomic<int64_t> sum{0};
  parallel_for(100, 1, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
  EXPECT_EQ(sum, 100);
}

// Jobs of changing size in quick succession: a worker that is late for one must not take part in the next.
TEST_P(ThreadTeam, QuickSuccessionOfJobs) {
  for (int64_t job = 0; job < 5000; ++job) {
    const int64_t count = 1 + job % 11;
    int64_t touched[11] = {};  // plain: two threads on one index would be a race, which the sanitizer sees
    parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) touched[i] += job + 1;
    });
    for (int64_t i = 0; i < count; ++i) ASSERT_EQ(touched[i], job + 1) << "job " << job;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadTeam, testing::Values(1, 2, 3, 8));

TEST(ThreadsAskedFor, NonsenseIsRefusedAndNotTakenForAllCores) {
  const char* given = std::getenv("TEMPER_NUM_THREADS");
  const std::string before = given ? given : "";
  for (const char* text : {"", "0", "-3", "2.5", "two", "4 ", "100000", "99999999999999999999"}) {
    setenv("TEMPER_NUM_THREADS", text, 1);
    try {
      num_threads_asked_for();
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("TEMPER_NUM_THREADS is \"" + std::string(text) + "\""),
                std::string::npos);
    }
  }
  setenv("TEMPER_NUM_THREADS", "12", 1);
  EXPECT_EQ(num_threads_asked_for(), 12);
  unsetenv("TEMPER_NUM_THREADS");
  EXPECT_EQ(num_threads_asked_for(), 0);
  if (given) setenv("TEMPER_NUM_THREADS", before.c_str(), 1);
}

}  // namespace
}  // namespace temper
