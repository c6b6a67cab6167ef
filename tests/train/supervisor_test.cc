#include "train/supervisor.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <ctime>

#include "base/error.h"

namespace temper::train {
namespace {

TEST(SupervisorTest, TheFirstSignalAsksToStop) {
  for (const auto& [signal, name] : {std::pair{SIGINT, "SIGINT"}, {SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}}) {
    const StopRequest stop("USR1");
    EXPECT_EQ(stop.signal_name(), "");
    std::raise(signal);
    EXPECT_EQ(stop.signal_name(), name);
  }
}

TEST(SupervisorTest, AnySecondSignalEndsTheProcessAtOnce) {
  EXPECT_EXIT(
      {
        const StopRequest stop("USR2");
        std::raise(SIGUSR2);
        std::raise(SIGTERM);
      },
      ::testing::ExitedWithCode(128 + SIGTERM), "");
}

TEST(SupervisorTest, ASignalThatIsNotTheWarningKeepsItsMeaning) {
  EXPECT_EXIT(
      {
        const StopRequest stop("none");
        std::raise(SIGUSR1);
      },
      ::testing::KilledBySignal(SIGUSR1), "");
}

TEST(SupervisorTest, ARequestDoesNotOutliveItsRun) {
  {
    const StopRequest stop("none");
    std::raise(SIGTERM);
  }
  EXPECT_EQ(StopRequest("none").signal_name(), "");
}

TEST(SupervisorTest, ASignalReachesAllRanksThatAreThreadsWheneverTheyBeginAndEnd) {
  EXPECT_EXIT(
      {
        const StopRequest first("USR1");
        { const StopRequest ended("USR1"); }
        std::raise(SIGUSR1);
        const StopRequest late("USR1");
        _exit(first.signal_name() == "SIGUSR1" && late.signal_name() == "SIGUSR1" ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(SupervisorTest, SlurmTellsTheEndOfTheJob) {
  unsetenv("SLURM_JOB_END_TIME");
  EXPECT_TRUE(std::isinf(seconds_to_job_end()));
  setenv("SLURM_JOB_END_TIME", std::to_string(std::time(nullptr) + 3600).c_str(), 1);
  EXPECT_NEAR(seconds_to_job_end(), 3600, 60);
  unsetenv("SLURM_JOB_END_TIME");
}

TEST(SupervisorTest, ErrorsGetTheirPlaceAndKeepTheirCode) {
  try {
    with_place(
        12, [] { return "update"; }, [] { fail(ErrorCode::kDevice, "the card is gone"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    EXPECT_STREQ(error.what(), "step 12, update: the card is gone");
  }
}

TEST(SupervisorTest, WhatRanksSayOfOneAnotherHasItsPlacesAlready) {
  try {
    with_place(
        12, [] { return "update"; }, [] { fail(ErrorCode::kPeer, "rank 1 is gone"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "rank 1 is gone");
  }
}

}  // namespace
}  // namespace temper::train
