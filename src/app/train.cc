// temper train: a run, from its RUN.toml to a model directory.
#include <fmt/format.h>

#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/as_rank.h"
#include "app/commands.h"
#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/thread.h"
#include "comm/world.h"
#include "plan/choose_layout.h"
#include "train/answers.h"
#include "train/replay.h"
#include "train/run_config.h"
#include "train/same_start.h"
#include "train/trainer.h"

namespace temper::app {
namespace {

constexpr int kNotReproduced = 3;  // the step of a bundle

struct TrainArguments {
  std::string run_file;
  std::vector<std::string> overrides;
  std::string replay;
  bool help_keys = false, fresh = false, force = false;
  std::filesystem::path json;
};

void print_summary(const train::TrainSummary& summary) {
  if (summary.was_done) {
    fmt::print("the run is done: {} steps, model in {}. Give --fresh --force to remove it and begin anew\n",
               summary.num_steps, summary.model_dir.string());
    return;
  }
  fmt::print("{} steps, {} tokens in {:.1f} s: {:.0f} tokens/s, {:.1f} % of {}\n", summary.num_steps,
             summary.num_tokens, summary.train_seconds, summary.tokens_per_second, 100 * summary.mfu,
             summary.peak_name);
  fmt::print("loss {:.4f} -> {:.4f}", summary.first_loss, summary.last_loss);
  if (summary.heldout_before) fmt::print("   held-out {:.4f}", summary.heldout_before->loss);
  if (summary.heldout_after) fmt::print(" -> {:.4f}", summary.heldout_after->loss);
  fmt::print("\nmemory {} at its highest, {} planned\n", format_bytes(summary.peak_memory_bytes),
             format_bytes(summary.planned_bytes));
  if (summary.num_states > 0)
    fmt::print("{} states saved, training stood still {:.2f} ms for each\n", summary.num_states,
               1e3 * summary.mean_pause_seconds);
  if (summary.stopped_by.empty())
    fmt::print("{}model in {}\n", summary.interrupted ? "ended by train.max_seconds; " : "",
               summary.model_dir.string());
}

// The command that goes on with a stopped run: this one, without what begins a run anew.
std::string resume_command(const TrainArguments& arguments, int64_t num_ranks) {
  if (num_ranks > 1) return fmt::format("the same command that started the {} ranks", num_ranks);
  std::string command = "temper train " + arguments.run_file;
  for (const std::string& setting : arguments.overrides) command += fmt::format(" --set '{}'", setting);
  return command;
}

void write_summary(const std::filesystem::path& path, const train::TrainSummary& summary) {
  nlohmann::ordered_json json = {{"num_steps", summary.num_steps},
                                 {"num_tokens", summary.num_tokens},
                                 {"train_seconds", summary.train_seconds},
                                 {"tokens_per_second", summary.tokens_per_second},
                                 {"mfu", summary.mfu},
                                 {"peak_flops", summary.peak_flops},
                                 {"peak_name", summary.peak_name},
                                 {"peak_memory_bytes", summary.peak_memory_bytes},
                                 {"planned_bytes", summary.planned_bytes},
                                 {"first_loss", summary.first_loss},
                                 {"last_loss", summary.last_loss},
                                 {"interrupted", summary.interrupted},
                                 {"stopped_by", summary.stopped_by},
                                 {"num_states", summary.num_states},
                                 {"mean_pause_ms", 1e3 * summary.mean_pause_seconds},
                                 {"chain", fmt::format("{:016x}", summary.chain)}};
  if (summary.heldout_before) json["heldout_loss_before"] = summary.heldout_before->loss;
  if (summary.heldout_after) json["heldout_loss_after"] = summary.heldout_after->loss;
  write_file_atomically(path, json.dump(2) + "\n");
}

void replay(const std::string& bundle) {
  const train::ReplayResult result = train::replay(bundle);
  if (!result.finding.empty()) fmt::print("{}\n", result.finding);
  if (result.reproduced) {
    fmt::print("reproduced\n");
    return;
  }
  fmt::print("not reproduced: {}\n", result.difference);
  throw CLI::RuntimeError(kNotReproduced);
}

void write_samples(const train::RunConfig& config, const train::TrainSummary& summary) {
  const std::filesystem::path path = std::filesystem::path(config.output.dir) / train::kSamplesFileName;
  if (summary.was_done && std::filesystem::exists(path)) return;
  train::write_samples(config, summary.model_dir);
  fmt::print("answers of the model in {}\n", path.string());
}

// What the first rank says and writes at the end.
void conclude(const TrainArguments& arguments, const train::RunConfig& config, const train::TrainSummary& summary,
              int64_t num_ranks) {
  print_summary(summary);
  if (config.eval.samples > 0 && !summary.model_dir.empty()) write_samples(config, summary);
  if (!summary.stopped_by.empty())
    fmt::print("stopped by {} after step {}, state saved. To go on: {}\n", summary.stopped_by, summary.num_steps,
               resume_command(arguments, num_ranks));
  if (!arguments.json.empty()) write_summary(arguments.json, summary);
  if (!summary.incident_dir.empty())
    fmt::print("what went wrong: {0}; to see it again: temper train --replay {0}\n", summary.incident_dir.string());
}

train::TrainSummary train_on(comm::Comm& world, const train::RunConfig& config, train::Start start) {
  train::Trainer trainer(config, start, system_files(), std::numeric_limits<int64_t>::max(), nullptr, &world);
  return trainer.train();
}

// Ranks of one machine share its cores, unless the user says how many threads each has.
void share_cores(comm::World& world) {
  if (num_threads_asked_for() == 0 && world.comm().size() > 1) set_num_threads(static_cast<int>(world.num_cores()));
}

void run_rank(comm::World& world, const TrainArguments& arguments, train::Start start) {
  share_cores(world);
  train::RunConfig config = train::load_run_config(arguments.run_file, arguments.overrides);
  if (world.comm().size() > 1) train::check_alike(world.comm(), train::started_with(config));
  const int64_t memory_bytes = backend::cpu().device.info().memory_bytes / world.num_ranks_here();
  fmt::print("{}", plan::choose_together(world.comm(), memory_bytes, config));
  const train::TrainSummary summary = train_on(world.comm(), config, start);
  world.close();
  if (world.comm().rank() == 0) conclude(arguments, config, summary, world.comm().size());
  if (summary.stopped_by_guard) throw CLI::RuntimeError(kStoppedByGuard);
}

void run(const TrainArguments& arguments) {
  if (arguments.help_keys) {
    fmt::print("{}", train::help_keys());
    return;
  }
  if (!arguments.replay.empty()) return replay(arguments.replay);
  if (arguments.run_file.empty()) {
    fail(ErrorCode::kInvalidArgument, "no run file; give RUN.toml, or --help-keys for what may stand in it");
  }
  if (arguments.force && !arguments.fresh)
    fail(ErrorCode::kInvalidArgument, "--force says that --fresh may remove a run; give both or neither");
  const train::Start start = arguments.force   ? train::Start::kFreshForce
                             : arguments.fresh ? train::Start::kFresh
                                               : train::Start::kResume;
  const std::unique_ptr<comm::World> world = comm::open_world();
  as_rank(*world, [&] { run_rank(*world, arguments, start); });
}

}  // namespace

void add_train(CLI::App& app) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* command = app.add_subcommand("train", "post-train a model as RUN.toml says");
  command->add_option("RUN.toml", arguments->run_file, "the run");
  command->add_option("--set", arguments->overrides, "section.key=value, instead of what the run file says")
      ->take_all()
      ->allow_extra_args(false);
  command->add_flag("--help-keys", arguments->help_keys, "print every key of RUN.toml with its meaning");
  command->add_flag("--fresh", arguments->fresh, "begin a run; refuse to go on with one that is in output.dir");
  command->add_flag("--force", arguments->force, "with --fresh: remove the run that is in output.dir");
  command->add_option("--replay", arguments->replay,
                      "bundle of a bad step (incident-<step>): run up to it again, write nothing, say whether it shows "
                      "the same");
  command->add_option("--json", arguments->json, "write speed, memory and losses of the run to this file");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace temper::app
