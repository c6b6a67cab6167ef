// Kills a real training process with SIGKILL at random instants, lets it go on, and compares what it made with a run
// that was left alone: weights byte for byte, and every line of metrics but what the machine's speed says.
//
//   kill_test NUMBER [SEED]      the last line is "20/20 equal"; exit code 1 if one is not
//
// A state is saved after every step, so that many kills meet a write. In every third trial the process that goes on is
// killed, too.
#include <fmt/format.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "app/run_binary.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/philox.h"
#include "base/scratch_dir.h"
#include "train/run_folder.h"

namespace temper::test {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  std::string weights;
  std::vector<nlohmann::ordered_json> metrics;
  bool operator==(const Outcome&) const = default;
};

class KillTest {
 public:
  explicit KillTest(uint64_t seed) : random_{seed, RandomPurpose::kTest} {
    train::testing::make_run_folder(folder_.path());
    run_file_ = folder_.write("run.toml", train::testing::run_file_text(folder_.path()));
    const double start = now_seconds();
    double first_state = 0;
    const RunResult result = run_and_signal(arguments("whole"), SIGKILL, [&] {
      if (first_state == 0 && fs::exists(folder_.path() / "whole/state")) first_state = now_seconds();
      return false;
    });
    CHECK(result.exit_code == 0 && first_state > 0, result.output);
    seconds_to_state_ = first_state - start;
    seconds_with_states_ = now_seconds() - first_state;
    whole_ = outcome("whole");
  }

  // Whether a run that is killed ends as the one that was not.
  bool trial(int number) {
    const std::string dir = fmt::format("killed{}", number);
    for (int kills = number % 3 == 2 ? 2 : 1; kills > 0;) kills -= kill_once(dir);
    const RunResult rest = run_temper(arguments(dir));
    const bool is_equal = rest.exit_code == 0 && outcome(dir) == whole_;
    if (is_equal) {
      fs::remove_all(folder_.path() / dir);
    } else {
      fmt::print("trial {} differs; exit code {}, its output:\n{}\n", number, rest.exit_code, rest.output);
    }
    return is_equal;
  }

  void report() const {
    fmt::print("{} kills: {} before the first state, {} while a state was being written, {} while the model was\n",
               num_kills_, num_before_, num_in_state_, num_in_model_);
  }

 private:
  std::vector<std::string> arguments(const std::string& dir) const {
    return {"train", run_file_,
            "--set", fmt::format("output.dir={}", (folder_.path() / dir).string()),
            "--set", "checkpoint.every=1",
            "--set", "train.steps=40",
            "--set", "train.precision=bf16",
            "--set", "train.bias_update_speed=0.01",
            "--set", "output.eval_every=5",
            "--set", "data.train=" + (folder_.path() / "text.jsonl").string()};
  }

  Outcome outcome(const std::string& dir) const {
    const fs::path path = folder_.path() / dir;
    return {read_file(path / "model/model.safetensors"), train::testing::mathematics_of(path / "metrics.jsonl")};
  }

  // Starts the run in dir and kills it at a random instant: of its start once in five times, else of the time after its
  // first state. False if it had ended before.
  bool kill_once(const std::string& dir) {
    const bool at_start = random_.below(1, num_draws_, 5) == 0;
    const double delay = random_.uniform(0, num_draws_++) * (at_start ? seconds_to_state_ : seconds_with_states_);
    double begin = at_start ? now_seconds() : 0;
    const RunResult result = run_and_signal(arguments(dir), SIGKILL, [&] {
      if (begin == 0 && fs::exists(folder_.path() / dir / "state")) begin = now_seconds();
      return begin > 0 && now_seconds() >= begin + delay;
    });
    if (result.exit_code == 0) {  // it was faster than the run that was timed: begin again
      fs::remove_all(folder_.path() / dir);
      return false;
    }
    ++num_kills_;
    bool in_state = false;
    for (std::error_code error; const auto& entry : fs::directory_iterator(folder_.path() / dir / "state", error))
      in_state |= entry.path().filename().string().starts_with(".");
    num_in_state_ += in_state;
    num_in_model_ += fs::exists(folder_.path() / dir / "model/.saving");
    num_before_ += !fs::exists(folder_.path() / dir / "state");
    return true;
  }

  const Philox random_;
  ScratchDir folder_;
  std::string run_file_;
  double seconds_to_state_ = 0, seconds_with_states_ = 0;  // of the whole run
  Outcome whole_;
  uint64_t num_draws_ = 0;
  int num_kills_ = 0, num_in_state_ = 0, num_in_model_ = 0, num_before_ = 0;
};

}  // namespace
}  // namespace temper::test

int main(int argc, char** argv) {
  const int number = argc > 1 ? std::atoi(argv[1]) : 0;
  if (number < 1) {
    fmt::print(stderr, "usage: kill_test NUMBER [SEED]\n");
    return 2;
  }
  temper::test::KillTest test(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  int num_equal = 0;
  for (int i = 0; i < number; ++i) num_equal += test.trial(i);
  test.report();
  fmt::print("{}/{} equal\n", num_equal, number);
  return num_equal == number ? 0 : 1;
}
