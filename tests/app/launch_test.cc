// temper launch with real ranks: what a user sees of errors, of a rank that is killed and of one that is stopped, and
// that the run goes on as if nothing had been.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <fcntl.h>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "app/run_binary.h"
#include "base/scratch_dir.h"
#include "train/run_folder.h"

namespace temper::test {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

std::string contents_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The process that is a rank of the run; 0 where there is none (yet).
int process_of_rank(int rank, const std::string& run_file) {
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const int process = std::atoi(entry.path().filename().c_str());
    if (process == 0 || contents_of(entry.path() / "cmdline").find(run_file) == std::string::npos) continue;
    const std::string wanted = fmt::format("OMPI_COMM_WORLD_RANK={}", rank) + '\0';
    if (contents_of(entry.path() / "environ").find(wanted) != std::string::npos) return process;
  }
  return 0;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

class LaunchCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("mpirun --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "mpirun is not installed";
    train::testing::make_run_folder(folder_.path());
    run_file_ = folder_.write("run.toml", train::testing::run_file_text(folder_.path()));
  }

  std::vector<std::string> arguments(const std::string& dir, const std::vector<std::string>& settings = {},
                                     const std::string& num_ranks = "2") const {
    std::vector<std::string> list = {"launch", run_file_, "-n", num_ranks};
    for (const std::string& setting :
         {"output.dir=" + (folder_.path() / dir).string(), "data.train=" + (folder_.path() / "text.jsonl").string(),
          std::string("train.steps=200"), std::string("checkpoint.every=5"), std::string("run.exact=true"),
          std::string("train.gradient_accumulation=4")})
      list.insert(list.end(), {"--set", setting});
    for (const std::string& setting : settings) list.insert(list.end(), {"--set", setting});
    return list;
  }

  // Lets the run come to its second state, and sends a signal to a rank.
  RunResult drill(int signal, int rank, const std::string& dir, const std::vector<std::string>& command) const {
    const fs::path state = folder_.path() / dir / "state/step-00000010";
    const auto send = [&](int) {
      const int process = process_of_rank(rank, run_file_);
      ASSERT_GT(process, 0);
      kill(process, signal);
    };
    return run_and_act(
        command, [&] { return fs::exists(state); }, send);
  }

  ScratchDir folder_;
  std::string run_file_;
};

TEST_F(LaunchCommand, ARankThatIsKilledIsNamedAndTheRunGoesOnAsIfNothingHadBeen) {
  const RunResult whole = run_temper(arguments("whole"));
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  const RunResult killed = drill(SIGKILL, 1, "killed", arguments("killed"));
  EXPECT_EQ(killed.exit_code, 0) << killed.output;
  EXPECT_THAT(killed.output, AllOf(ContainsRegex("temper: peer: .*rank 1 \\(process [0-9]+\\) is gone"),
                                   ContainsRegex("temper launch: a rank was killed by signal 9; start 1 of 3 without "
                                                 "progress, going on from step [0-9]+, 2 ranks"),
                                   ContainsRegex("\ngoing on after step [0-9]+ of 200")));
  EXPECT_EQ(train::testing::mathematics_of(folder_.path() / "killed/metrics.jsonl"),
            train::testing::mathematics_of(folder_.path() / "whole/metrics.jsonl"));
}

TEST_F(LaunchCommand, ARankThatIsStoppedIsNamedAfterTheDeadline) {
  std::vector<std::string> command = arguments("stopped", {"layout.deadline=1", "train.steps=100000"});
  command.insert(command.end(), {"--restarts", "0"});
  const RunResult stopped = drill(SIGSTOP, 0, "stopped", command);
  EXPECT_EQ(stopped.exit_code, 3);
  EXPECT_THAT(stopped.output, AllOf(ContainsRegex("rank 1: temper: peer: .*rank 0 \\(process [0-9]+\\) is stopped by a "
                                                  "signal"),
                                    HasSubstr("gave up after 1 starts without progress, the state of step ")));
  const RunResult inspected = run_temper({"inspect", (folder_.path() / "stopped").string()});
  EXPECT_EQ(inspected.exit_code, 0) << "the states are whole: " << inspected.output;
}

TEST_F(LaunchCommand, WithFewerPlacesTheRunIsMadeOnFewerRanks) {
  std::vector<std::string> command = arguments("run", {"train.steps=4", "layout.auto=true"}, "3");
  command.insert(command.end(), {"--min-ranks", "2", "--", "--host", "localhost:2"});
  const RunResult result = run_temper(command);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("beginning again, for there is no state yet, 2 ranks\n"),
                                   HasSubstr("\nlayout of 2 ranks, the fastest of "), HasSubstr("\n2 ranks: ")));
}

TEST_F(LaunchCommand, ASignalStopsAllRanksInOrder) {
  const fs::path state = folder_.path() / "run/state/step-00000005";
  const RunResult stopped = run_and_signal(arguments("run"), SIGTERM, [&] { return fs::exists(state); });
  EXPECT_EQ(stopped.exit_code, 0) << stopped.output;
  EXPECT_THAT(stopped.output, HasSubstr("stopped by "));
  const RunResult rest = run_temper(arguments("run"));
  EXPECT_EQ(rest.exit_code, 0);
  EXPECT_THAT(rest.output, HasSubstr("going on after step "));
}

TEST_F(LaunchCommand, WhatAllRanksFindIsSaidOnce) {
  const RunResult result = run_temper(arguments("run", {"layout.zero=1", "layout.pp=2", "layout.dp=2"}));
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_EQ(count(result.output, "[layout] asks for dp 2 x pp 2"), 1u) << result.output;
  EXPECT_THAT(result.output, Not(HasSubstr("temper launch:"))) << "the user's to mend: not started again";
  EXPECT_FALSE(fs::exists(folder_.path() / "run")) << "what is refused leaves nothing behind";
}

TEST_F(LaunchCommand, ARunThatItsGuardStoppedIsNotStartedAgain) {
  const RunResult result =
      run_temper(arguments("run", {"optimizer.lr=1e37", "optimizer.warmup_offset=1", "guard.on_nonfinite=stop"}));
  EXPECT_EQ(result.exit_code, 4) << result.output;
  EXPECT_THAT(result.output, HasSubstr("temper launch: the guard stopped the run; not started again"));
  EXPECT_EQ(count(result.output, "stopped by the guard at step 2"), 1u) << result.output;
  EXPECT_EQ(count(result.output, "First bad value, on rank "), 1u) << result.output;
}

TEST_F(LaunchCommand, WhatOneRankFindsEndsAllWithItsCode) {
  fs::create_directory(folder_.path() / "run");
  const int held = open((folder_.path() / "run").c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(flock(held, LOCK_EX), 0);
  const RunResult result = run_temper(arguments("run"));
  close(held);
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_EQ(count(result.output, "another process is training in "), 1u) << result.output;
  EXPECT_THAT(result.output, HasSubstr("temper: invalid argument: another process is training in "));
}

TEST_F(LaunchCommand, RanksThatWereStartedDifferentlyAreToldApart) {
  const fs::path program = fs::path(TEMPER_BINARY_DIR) / "temper", other = folder_.path() / "other";
  fs::copy_file(program, other);
  std::ofstream(other, std::ios::app) << "x";
  // As rank 0 the program, with a setting more, as rank 1 what launch starts.
  const auto run_beside = [&](const fs::path& first, const std::string& setting) {
    const std::vector<std::string> rank1 = arguments("run", {}, "1");
    std::vector<std::string> command = rank1;
    command.insert(command.end(), {"--", first.string(), "train"});
    for (const std::string& word : rank1)
      if (word != "launch" && word != "-n" && word != "1") command.push_back(word);
    command.insert(command.end(), {"--set", "train.warning_signal=USR1", "--set", setting, ":", "-n", "1"});
    return run_temper(command);
  };
  const RunResult settings = run_beside(program, "train.seed=7");
  EXPECT_EQ(settings.exit_code, 2) << settings.output;
  EXPECT_EQ(count(settings.output, "data; rank 1: train.seed is 0, on rank 0 7\n"), 1u) << settings.output;
  const RunResult programs = run_beside(other, "train.seed=0");
  EXPECT_EQ(programs.exit_code, 2) << programs.output;
  EXPECT_EQ(count(programs.output, "data; rank 1: the program is "), 1u) << programs.output;
  EXPECT_FALSE(fs::exists(folder_.path() / "run"));
}

TEST_F(LaunchCommand, WithoutALauncherThePackageIsNamed) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", folder_.path().c_str(), 1);
  const RunResult result = run_temper(arguments("run"));
  setenv("PATH", path.c_str(), 1);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr("apt-get install openmpi-bin"));
}

}  // namespace
}  // namespace temper::test
