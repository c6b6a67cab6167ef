// Signals to a training process as a user or a batch system sends them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <ctime>

#include "app/run_binary.h"
#include "base/file.h"
#include "base/scratch_dir.h"
#include "train/run_folder.h"

namespace temper::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ResumeCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    train::testing::make_run_folder(folder_.path());
    run_file_ = folder_.write("run.toml", train::testing::run_file_text(folder_.path()));
  }

  std::vector<std::string> arguments(const std::string& dir, int steps = 200) const {
    return {"train", run_file_,
            "--set", "output.dir=" + (folder_.path() / dir).string(),
            "--set", "train.steps=" + std::to_string(steps),
            "--set", "data.train=" + (folder_.path() / "text.jsonl").string()};
  }

  // Starts the run and sends a signal once it has reported a few steps.
  RunResult stop_with(int signal, const std::string& dir) const {
    const fs::path metrics = folder_.path() / dir / "metrics.jsonl";
    return run_and_signal(arguments(dir), signal, [&] {
      std::error_code error;
      return fs::file_size(metrics, error) > 2000 && !error;
    });
  }

  ScratchDir folder_;
  std::string run_file_;
};

TEST_F(ResumeCommand, ASignalStopsTheRunInOrderAndTheSameCommandGoesOn) {
  ASSERT_EQ(run_temper(arguments("whole")).exit_code, 0);
  for (const auto& [signal, name] : {std::pair{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGUSR1, "SIGUSR1"}}) {
    const RunResult stopped = stop_with(signal, name);
    EXPECT_EQ(stopped.exit_code, 0) << stopped.output;
    EXPECT_THAT(stopped.output, HasSubstr(std::string("stopped by ") + name + " after step "));
    EXPECT_THAT(stopped.output, HasSubstr("To go on: temper train " + run_file_ + " --set 'output.dir="));
    EXPECT_FALSE(fs::exists(folder_.path() / name / "model")) << "no model of a run that is to go on";
    const RunResult rest = run_temper(arguments(name));
    EXPECT_EQ(rest.exit_code, 0) << rest.output;
    EXPECT_THAT(rest.output, HasSubstr("going on after step "));
    const char* weights = "model/model.safetensors";
    EXPECT_TRUE(read_file(folder_.path() / name / weights) == read_file(folder_.path() / "whole" / weights)) << name;
    EXPECT_EQ(train::testing::mathematics_of(folder_.path() / name / "metrics.jsonl"),
              train::testing::mathematics_of(folder_.path() / "whole" / "metrics.jsonl"));
  }
}

TEST_F(ResumeCommand, UnderSlurmTheRunStopsBeforeTheJobEnds) {
  setenv("SLURM_JOB_END_TIME", std::to_string(std::time(nullptr) + 600).c_str(), 1);
  auto settings = arguments("run", 8);
  settings.insert(settings.end(), {"--set", "train.stop_before_end=3600"});
  const RunResult result = run_temper(settings);
  unsetenv("SLURM_JOB_END_TIME");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("stopped by the end of the job in "));
  EXPECT_EQ(run_temper(arguments("run", 8)).exit_code, 0);
}

TEST_F(ResumeCommand, ForceGoesWithFresh) {
  auto settings = arguments("run", 2);
  settings.push_back("--force");
  const RunResult result = run_temper(settings);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr("--fresh"));
}

}  // namespace
}  // namespace temper::test
