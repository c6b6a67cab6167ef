// Ranks as processes under mpirun, on one machine and as if each were on a machine of its own: the same answers, and
// the drills: whoever is left names the rank that failed and ends with code 3.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "base/scratch_dir.h"

namespace temper::comm {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

struct Launched {
  int code = -1;
  std::string output;
};

// ranks_per_node 0: as it is. Every rank writes a file of its own, for mpirun drops what it has not passed on when a
// job fails, and says how it has ended.
Launched launch(int num_ranks, int ranks_per_node, const std::string& what) {
  test::ScratchDir dir;
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  setenv("TEMPER_RANKS_PER_NODE", std::to_string(ranks_per_node).c_str(), 1);
  const std::string script = fmt::format(
      "trap \"\" TERM; exec > {}/$OMPI_COMM_WORLD_RANK 2>&1; {}/tests/ranks {}; code=$?; "
      "echo rank $OMPI_COMM_WORLD_RANK ended with $code; exit $code",
      dir.path().string(), TEMPER_BINARY_DIR, what);
  // Whoever is not gone in twice this many seconds is killed by mpirun; across machines silence takes two to tell.
  const int seconds = ranks_per_node == 0 ? 1 : 2;
  const std::string command =
      fmt::format("mpirun --oversubscribe --mca odls_base_sigkill_timeout {} -n {} sh -c '{}' > {}/mpirun 2>&1",
                  seconds, num_ranks, script, dir.path().string());
  Launched launched;
  const int status = std::system(command.c_str());
  launched.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    std::ifstream file(entry.path());
    launched.output.append(std::istreambuf_iterator<char>(file), {});
  }
  return launched;
}

void skip_without_launcher() {
  if (std::system("mpirun --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "mpirun is not installed";
}

// 0: ranks meet in shared memory; 1: each as if on a machine of its own; 2: both ways are needed.
class ProcessesTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { skip_without_launcher(); }
};

TEST_P(ProcessesTest, EveryFunctionAnswersAsDefined) {
  const Launched launched = launch(3, GetParam(), "check");
  EXPECT_EQ(launched.code, 0) << launched.output;
  for (int r = 0; r < 3; ++r) EXPECT_THAT(launched.output, HasSubstr(fmt::format("rank {} of 3 is content", r)));
}

TEST_P(ProcessesTest, ARankThatIsKilledIsNamed) {
  const Launched launched = launch(3, GetParam(), "kill");
  EXPECT_NE(launched.code, 0);
  for (const int r : {0, 2}) {
    const std::string news = GetParam() == 1 ? "rank 1 is silent" : "rank 1 \\(process [0-9]+\\) is gone";
    EXPECT_THAT(launched.output, ContainsRegex(fmt::format("rank {} at [0-9.]+ s: {}", r, news)));
    EXPECT_THAT(launched.output, HasSubstr(fmt::format("rank {} ended with 3", r)));
  }
}

// The collectives of all ranks run beside their computing threads, which come to hear of it at the end of a step.
TEST_P(ProcessesTest, ARankThatIsKilledIsNamedByThoseWhoWaitBesideComputation) {
  const Launched launched = launch(3, GetParam(), "kill 1 beside");
  EXPECT_NE(launched.code, 0);
  for (const int r : {0, 2}) {
    const std::string news = GetParam() == 1 ? "rank 1 is silent" : "rank 1 \\(process [0-9]+\\) is gone";
    EXPECT_THAT(launched.output, ContainsRegex(fmt::format("rank {} at [0-9.]+ s: {}", r, news)));
    EXPECT_THAT(launched.output, HasSubstr(fmt::format("rank {} ended with 3", r)));
  }
}

INSTANTIATE_TEST_SUITE_P(RanksPerNode, ProcessesTest, ::testing::Values(0, 1, 2));

// What one way of meeting shows for all.
class DrillTest : public ::testing::Test {
 protected:
  void SetUp() override { skip_without_launcher(); }
};

TEST_F(DrillTest, ARankThatLeavesOutACollectiveAcrossMachinesIsNamed) {
  const Launched launched = launch(3, 1, "skip");
  EXPECT_EQ(launched.code, 3);
  EXPECT_THAT(launched.output,
              ContainsRegex("rank 2 at .*ranks 0, 2 came to gradients of layer 1 .* at step 2, backward of "
                            "micro-batch 0 while rank 1 came to gradients of layer 0"));
  for (int r = 0; r < 3; ++r) EXPECT_THAT(launched.output, HasSubstr(fmt::format("rank {} ended with 3", r)));
}

TEST_F(DrillTest, ARankThatIsStoppedIsNamed) {
  const Launched launched = launch(3, 0, "stop");
  EXPECT_EQ(launched.code, 3);
  for (const int r : {0, 2}) {
    EXPECT_THAT(launched.output, ContainsRegex(fmt::format("rank {} at .*rank 1 \\(process [0-9]+\\) is stopped by a "
                                                           "signal: step 2, backward of micro-batch 0",
                                                           r)));
    EXPECT_THAT(launched.output, HasSubstr(fmt::format("rank {} ended with 3", r)));
  }
}

TEST_F(DrillTest, ARankThatComputesForTooLongIsNamedAndOneThatIsLateIsNot) {
  const Launched stuck = launch(3, 0, "stuck");
  EXPECT_EQ(stuck.code, 3);
  for (const int r : {0, 2}) {
    EXPECT_THAT(stuck.output, ContainsRegex(fmt::format("rank {} at .*rank 1 \\(process [0-9]+\\) is stuck computing: "
                                                        "step 2, backward of micro-batch 0, since",
                                                        r)));
    EXPECT_THAT(stuck.output, HasSubstr(fmt::format("rank {} ended with 3", r)));
  }
  const Launched late = launch(3, 0, "late");
  EXPECT_EQ(late.code, 0) << late.output;
}

TEST_F(DrillTest, RanksThatWaitBesideComputationNameTheOneThatIsStoppedStuckOrSkips) {
  const std::string place = "step 2, backward of micro-batch 0";
  const std::pair<const char*, std::string> drills[] = {
      {"stop 1 beside", "rank {} at .*rank 1 \\(process [0-9]+\\) is stopped by a signal: " + place},
      {"stuck 1 beside", "rank {} at .*rank 1 \\(process [0-9]+\\) is stuck computing: " + place},
      {"skip 1 beside", "rank {} at .*ranks 0, 2 came to gradients of layer 1 .* at " + place +
                            " while rank 1 came to gradients of layer 0"}};
  for (const auto& [drill, says] : drills) {
    const Launched launched = launch(3, 0, drill);
    EXPECT_EQ(launched.code, 3) << launched.output;
    for (const int r : {0, 2}) {
      EXPECT_THAT(launched.output, ContainsRegex(fmt::format(fmt::runtime(says), r)));
      EXPECT_THAT(launched.output, HasSubstr(fmt::format("rank {} ended with 3", r)));
    }
  }
  EXPECT_EQ(launch(3, 0, "late 1 beside").code, 0);
}

TEST(LaunchTest, RanksThatCannotFindOneAnotherAreRefused) {
  const auto run = [](const std::string& variables) {
    Launched launched;
    FILE* pipe = popen(fmt::format("{} {}/tests/ranks check 2>&1", variables, TEMPER_BINARY_DIR).c_str(), "r");
    char text[4096];
    while (std::fgets(text, sizeof text, pipe) != nullptr) launched.output += text;
    launched.code = WEXITSTATUS(pclose(pipe));
    return launched;
  };
  const Launched torch_like = run("RANK=0 WORLD_SIZE=4 MASTER_ADDR=localhost");
  EXPECT_EQ(torch_like.code, 2);
  EXPECT_THAT(torch_like.output, HasSubstr("mpirun -n 4"));
  const Launched srun = run("SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1");
  EXPECT_EQ(srun.code, 2);
  EXPECT_THAT(srun.output, HasSubstr("srun --mpi=pmix"));
  EXPECT_THAT(run("WORLD_SIZE=1 RANK=0").output, HasSubstr("rank 0 of 1 is content"));
}

}  // namespace
}  // namespace temper::comm
