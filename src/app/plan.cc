// temper plan: what each rank of a run would take, from the trainer's own step on a backend that moves nothing.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "app/commands.h"
#include "app/numbers.h"
#include "backend/registry.h"
#include "base/clock.h"
#include "plan/choose_layout.h"
#include "train/run_options.h"

namespace temper::app {
namespace {

struct PlanArguments {
  std::string run_file;
  std::vector<std::string> overrides;
  int64_t num_ranks = 1;
};

// What the ranks of an axis exchange (docs/parallel.md).
std::string exchanged(const std::string& axis) {
  for (const auto& [name, what] : {std::pair{"data", "gradients and weights, by all ranks of a stage"},
                                   {"slices", "the same of what tp cuts"},
                                   {"edp", "the same of experts"},
                                   {"ep", "rows to experts and back"},
                                   {"cp", "rows and entries of documents that are cut"},
                                   {"tp", "latents, output groups, embeddings, logits"},
                                   {"pp", "residual streams between stages"},
                                   {"pp_back", "their gradients"}})
    if (axis == name) return what;
  return "";
}

// How many micro-batches' activations are in memory at once.
std::string alive(const plan::Role& role) {
  const bool is_one = role.num_slots == 1, has_chunks = role.chunks.size() > 1;
  return fmt::format("{} micro-batch{}{} in memory at once", role.num_slots, is_one ? "" : "es",
                     has_chunks ? " of a chunk of its layers" : "");
}

void print_role(const plan::Role& role) {
  fmt::print("\nstage {}: ", role.stage);
  for (const parallel::SiteRange& sites : role.chunks)
    fmt::print("{}{}", &sites == role.chunks.data() ? "" : "; ", parallel::describe(sites));
  fmt::print("; {} ranks; {}\n", role.num_ranks, alive(role));
  for (int k = 0; k < kNumTensorKinds; ++k)
    if (role.bytes[k] > 0)
      fmt::print("  {:<20} {:>12}\n", tensor_kind_name(static_cast<TensorKind>(k)), format_bytes(role.bytes[k]));
  fmt::print("  {:<20} {:>12}\n", "memory of a rank", format_bytes(role.total_bytes));
  fmt::print("  a step of a rank: {} ops, {:.4g} FLOPs; it exchanges:\n", role.num_ops, role.flops);
  for (const plan::AxisTraffic& traffic : role.traffic)
    if (traffic.num_calls > 0)
      fmt::print("  {:<7} {:>9} messages, {:>12}   {}\n", traffic.axis, traffic.num_calls,
                 format_bytes(traffic.num_bytes), exchanged(traffic.axis));
}

// The ranks that need most and least memory.
void print_extremes(const plan::DryRun& run) {
  const auto [least, most] = std::minmax_element(
      run.roles.begin(), run.roles.end(), [](const auto& a, const auto& b) { return a.total_bytes < b.total_bytes; });
  fmt::print("memory: {} on a rank of stage {}", format_bytes(most->total_bytes), most->stage);
  if (run.roles.size() > 1)
    fmt::print(", which needs most, {} on one of stage {}, which needs least", format_bytes(least->total_bytes),
               least->stage);
  fmt::print("\n");
}

// That of the run file, or the one that it leaves to be chosen.
parallel::Layout choose_or_resolve(const train::RunConfig& config, int64_t num_ranks, const model::Config& model) {
  if (!config.layout.is_auto) return parallel::resolve(train::layout_of(config), num_ranks, model);
  const int64_t memory_bytes = backend::cpu().device.info().memory_bytes / num_ranks;
  const plan::LayoutRequest request = plan::layout_request(config, num_ranks, memory_bytes);
  const plan::LayoutRanking ranking = plan::rank_layouts(request);
  fmt::print("{}\n", plan::describe(ranking, request));
  return ranking.layouts[ranking.chosen].layout;
}

void run(const PlanArguments& arguments) {
  const double start = now_seconds();
  const train::RunConfig config = train::load_run_config(arguments.run_file, arguments.overrides);
  plan::DryRunRequest request = plan::dry_run_request(config);
  request.layout = choose_or_resolve(config, arguments.num_ranks, request.config);
  const plan::DryRun run = plan::dry_run(request);
  fmt::print("{} ranks: {} (docs/parallel.md says what they cut)\n", arguments.num_ranks, request.layout.to_string());
  fmt::print("a step: {} micro-batches, {} tokens, {:.4g} FLOPs of the model, {:.4g} for each rank\n",
             request.num_micro_batches, run.num_tokens, run.model_flops,
             run.model_flops / static_cast<double>(arguments.num_ranks));
  if (request.layout.pp > 1)
    fmt::print("pipeline: stages wait for one another {:.1f} % of a step\n", 100 * run.bubble_fraction);
  print_extremes(run);
  for (const plan::Role& role : run.roles) print_role(role);
  fmt::print("\na step of a rank of every stage was gone through, without its data, in {:.1f} s\n",
             now_seconds() - start);
}

}  // namespace

void add_plan(CLI::App& app) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* command = app.add_subcommand(
      "plan",
      "memory, messages and FLOPs of each kind of rank of a run, without the ranks; with layout.auto, which "
      "layout it takes and why");
  command->add_option("RUN.toml", arguments->run_file, "the run")->required();
  command->add_option("--set", arguments->overrides, "section.key=value, instead of what the run file says")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--ranks", arguments->num_ranks, "ranks of the world (default 1)")->check(above_zero());
  command->callback([arguments] { run(*arguments); });
}

}  // namespace temper::app
