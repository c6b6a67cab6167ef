// temper launch: a training run on many ranks, started again when it fails.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>

#include "app/commands.h"
#include "app/numbers.h"
#include "base/error.h"
#include "checkpoint/state_log.h"
#include "comm/launched.h"
#include "parallel/mesh.h"
#include "train/run_config.h"
#include "train/run_dir.h"
#include "train/run_options.h"
#include "train/supervisor.h"

namespace temper::app {
namespace {

constexpr int kUsersToMend = 2, kGaveUp = 3, kFirstSignal = 128;
constexpr auto kBetweenLooks = std::chrono::milliseconds(50);

struct LaunchArguments {
  std::string run_file;
  std::vector<std::string> overrides;
  std::string json;
  int64_t num_ranks = 0, min_ranks = 0;  // min_ranks 0: num_ranks
  int64_t restarts = 3;
  bool fresh = false, force = false;
  std::vector<std::string> launcher_options;
};

// A run that is started until it ends.
class Launch {
 public:
  explicit Launch(const LaunchArguments& arguments)
      : arguments_(arguments),
        config_(train::load_run_config(arguments.run_file, arguments.overrides)),
        num_ranks_(arguments.num_ranks) {}

  int run() {
    const train::StopRequest stop("USR1");
    for (bool is_first = true;; is_first = false) {
      const int64_t before = newest_state();
      const int code = run_once(stop, is_first);
      if (code == 0 || code == kUsersToMend) return code;
      if (code == kStoppedByGuard) {
        tell("the guard stopped the run; not started again, for it would meet the same step (docs/incidents.md)");
        return code;
      }
      num_failures_ = newest_state() > before ? 1 : num_failures_ + 1;
      if (!stop.signal_name().empty()) {
        tell(fmt::format("{}; not started again, for {} has asked to stop", what_happened(code), stop.signal_name()));
        return kGaveUp;
      }
      if (!choose_ranks(code)) return code == 1 ? code : kGaveUp;
      tell(fmt::format("{}; start {} of {} without progress, {}, {} ranks", what_happened(code), num_failures_,
                       arguments_.restarts, going_on(), num_ranks_));
    }
  }

 private:
  static void tell(const std::string& text) { fmt::print(stderr, "temper launch: {}\n", text); }

  static std::string what_happened(int code) {
    if (code == kGaveUp) return "a rank failed (exit code 3)";
    if (code > kFirstSignal) return fmt::format("a rank was killed by signal {}", code - kFirstSignal);
    return fmt::format("the ranks could not be started, or one failed by our fault (exit code {})", code);
  }

  // Of the run's states, 0 where there is none. What train goes on from, unless it is damaged.
  int64_t newest_state() const {
    const train::RunDir dir(config_.output.dir, train::Start::kReplay);
    const std::vector<int64_t> steps = checkpoint::StateLog(dir.states(), {}).steps();
    return steps.empty() ? 0 : steps.back();
  }

  std::string going_on() const {
    const int64_t step = newest_state();
    return step > 0 ? fmt::format("going on from step {}", step) : "beginning again, for there is no state yet";
  }

  int run_once(const train::StopRequest& stop, bool is_first) const {
    comm::LaunchedRanks ranks(comm::launch_command({num_ranks_, program(is_first), arguments_.launcher_options}));
    bool is_asked = false;
    while (!ranks.ended()) {
      if (!is_asked && !stop.signal_name().empty()) {
        ranks.ask_to_stop();
        is_asked = true;
      }
      std::this_thread::sleep_for(kBetweenLooks);
    }
    return ranks.code();
  }

  // This program's train. What begins a run anew is for the first start only.
  std::vector<std::string> program(bool is_first) const {
    std::vector<std::string> argv = {std::filesystem::read_symlink("/proc/self/exe").string(), "train",
                                     arguments_.run_file};
    for (const std::string& setting : arguments_.overrides) argv.insert(argv.end(), {"--set", setting});
    argv.insert(argv.end(), {"--set", "train.warning_signal=USR1"});  // which is how we ask
    if (!arguments_.json.empty()) argv.insert(argv.end(), {"--json", arguments_.json});
    if (is_first && arguments_.fresh) argv.emplace_back("--fresh");
    if (is_first && arguments_.force) argv.emplace_back("--force");
    return argv;
  }

  // Whether to start again, and with how many ranks: fewer where as many failed twice without progress, or could not
  // even be started (code 1).
  bool choose_ranks(int code) {
    const int64_t fewer = parallel::largest_world(train::layout_of(config_), num_ranks_ - 1);
    const bool may_shrink = arguments_.min_ranks > 0 && fewer >= arguments_.min_ranks;
    if (code == 1 && !may_shrink) {
      tell(what_happened(code) + "; gave up");
      return false;
    }
    if (num_failures_ > arguments_.restarts) {
      tell(fmt::format(
          "{}; gave up after {} starts without progress, {}", what_happened(code), num_failures_,
          newest_state() > 0 ? fmt::format("the state of step {} stays", newest_state()) : "there is no state"));
      return false;
    }
    if (may_shrink && (code == 1 || num_failures_ > 1)) num_ranks_ = fewer;
    return true;
  }

  const LaunchArguments& arguments_;
  const train::RunConfig config_;
  int64_t num_ranks_;
  int64_t num_failures_ = 0;  // since the last progress
};

void run(const LaunchArguments& arguments) {
  if (arguments.min_ranks > arguments.num_ranks)
    fail(ErrorCode::kInvalidArgument, "--min-ranks {} is more than the {} ranks of -n", arguments.min_ranks,
         arguments.num_ranks);
  if (const int code = Launch(arguments).run(); code != 0) throw CLI::RuntimeError(code);
}

}  // namespace

void add_launch(CLI::App& app) {
  auto arguments = std::make_shared<LaunchArguments>();
  CLI::App* command = app.add_subcommand("launch", "train on many ranks, and start them again when one fails");
  command->footer("What stands after -- goes to mpirun (or srun): temper launch -n 16 RUN.toml -- --hostfile hosts");
  command->add_option("RUN.toml", arguments->run_file, "the run")->required();
  command->add_option("launcher options", arguments->launcher_options, "after --: options for mpirun or srun");
  command->add_option("-n", arguments->num_ranks, "ranks")->required()->check(above_zero());
  command->add_option("--set", arguments->overrides, "section.key=value, instead of what the run file says")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--restarts", arguments->restarts, "starts again without a newer state before it gives up")
      ->capture_default_str()
      ->check(zero_or_above());
  command
      ->add_option("--min-ranks", arguments->min_ranks,
                   "after two failures without progress go on with fewer ranks, down to this many, where the layout "
                   "allows it (layout.dp = 0)")
      ->check(above_zero());
  command->add_flag("--fresh", arguments->fresh, "as of train, for the first start");
  command->add_flag("--force", arguments->force, "as of train, for the first start");
  command->add_option("--json", arguments->json, "write speed, memory and losses of the run to this file");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace temper::app
