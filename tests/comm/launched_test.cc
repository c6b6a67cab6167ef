// The command that starts ranks, and the child that runs it.
#include "comm/launched.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "base/error.h"

namespace temper::comm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

int code_of(const std::vector<std::string>& command) {
  LaunchedRanks ranks(command);
  while (!ranks.ended()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return ranks.code();
}

TEST(LaunchedTest, InsideAnAllocationOfSlurmSrunStartsTheRanks) {
  const RankCommand command{8, {"temper", "train", "RUN.toml"}, {"--label"}};
  setenv("SLURM_JOB_ID", "1", 1);
  EXPECT_THAT(launch_command(command), ElementsAre("srun", "--mpi=pmix", "--kill-on-bad-exit=0", "--ntasks", "8",
                                                   "--label", "temper", "train", "RUN.toml"));
  unsetenv("SLURM_JOB_ID");
  const std::vector<std::string> argv = launch_command(command);
  EXPECT_EQ(argv.front(), "mpirun");
  EXPECT_EQ(std::count(argv.begin(), argv.end(), "--allow-run-as-root"), geteuid() == 0 ? 1 : 0);
}

TEST(LaunchedTest, TheCodeIsThatOfTheChildOrItsSignal) {
  EXPECT_EQ(code_of({"sh", "-c", "exit 3"}), 3);
  EXPECT_EQ(code_of({"sh", "-c", "kill -9 $$"}), 137);
  LaunchedRanks asked({"sleep", "60"});
  EXPECT_FALSE(asked.ended());
  asked.ask_to_stop();
  while (!asked.ended()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(asked.code(), 128 + SIGUSR1);
}

TEST(LaunchedTest, AProgramThatIsNotThereIsNamed) {
  try {
    LaunchedRanks ranks({"no-such-launcher"});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("no-such-launcher, which is not installed"));
  }
}

}  // namespace
}  // namespace temper::comm
