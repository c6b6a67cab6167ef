// Speed of training steps on several ranks, and for how long ranks waited for one another.
//
//   mpirun -n N build/bench/scaling [--case demo|activated-30m] [--dp N] [--ep N] [--pp N] [--zero N]
//                                   [--schedule 1f1b|interleaved|zero-bubble] [--chunks N] [--micro-batches N]
//                                   [--steps N] [--precision bf16|fp32] [--overlap]
//
// Run it from the repository's root, without mpirun for one rank, and with TEMPER_NUM_THREADS=1 where ranks share a
// machine. --micro-batches counts those of a step for each rank: weak scaling. Reports the median of --steps steps
// after one that warms up: tokens/s of all ranks, and for each group of the first rank how often, how much and how
// long.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "comm/world.h"
#include "step_rig.h"
#include "train/session.h"
#include "train/step.h"

namespace temper::bench {
namespace {

constexpr StepCase kCases[] = {{"demo", "examples/demo/config.json", 4096, 128},
                               {"activated-30m", "bench/activated_30m.json", 2048, 512}};

struct Arguments {
  std::string name = "activated-30m", precision = "bf16";
  parallel::Layout layout;
  int64_t micro_batches = 4, steps = 3;
};

const StepCase& case_of(const std::string& name) {
  for (const StepCase& c : kCases)
    if (name == c.name) return c;
  fail(ErrorCode::kInvalidArgument, "no case {}; there are demo and activated-30m", name);
}

void print_traffic(const std::string& name, const comm::Comm& group, const comm::Traffic& before, int64_t num_steps) {
  const comm::Traffic now = group.traffic();
  const auto per_step = [&](auto end, auto begin) {
    return static_cast<double>(end - begin) / static_cast<double>(num_steps);
  };
  fmt::print("  {:<6} {:>6.0f} calls  {:>9.1f} MiB  waited {:>7.1f} ms\n", name,
             per_step(now.num_calls, before.num_calls), per_step(now.num_bytes, before.num_bytes) / (1 << 20),
             1e3 * per_step(now.wait_seconds, before.wait_seconds));
}

void run(comm::Comm& world, const Arguments& arguments) {
  const StepCase& c = case_of(arguments.name);
  const model::Config config = model::parse_config(read_file(c.config), c.config);
  const parallel::Layout layout = parallel::resolve(arguments.layout, world.size(), config);
  const parallel::Ranks ranks = parallel::join_mesh(world, layout);
  model::ModelOptions options;
  options.precision = arguments.precision == "fp32" ? layers::Precision::kFp32 : layers::Precision::kBf16;
  options.max_tokens = c.num_tokens, options.max_document = c.document_tokens;
  const int64_t num_batches = arguments.micro_batches * world.size();
  ranks.place(config, num_batches, options);
  train::Session session(train::backend_for(options.precision), config, options, train::StateMemory::kNone, &ranks);
  session.model().initialize(session.ctx(), 1);
  session.model().weights_updated(session.ctx());
  const auto objective = objective::make_objective("pretrain", {});
  optim::Adamw adamw({});
  train::Step step({session.ctx(), session.model(), *objective, session.norm_meter(), adamw, 1.0});
  const std::vector<layers::MicroBatch> batches(num_batches, random_batch(c, config.vocab_size));

  const auto groups = ranks.axes();
  std::vector<comm::Traffic> before;
  std::vector<double> seconds;
  double waited = 0;
  for (int64_t i = 0; i <= arguments.steps; ++i) {
    if (i == 1) {
      for (const auto& [name, group] : groups) before.push_back(group->traffic());
      waited = session.overlap_wait_seconds();
    }
    const double start = now_seconds();
    step.compute(batches, 1e-4);
    step.update();
    if (i > 0) seconds.push_back(now_seconds() - start);
  }
  if (world.rank() > 0) return;
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double tokens = static_cast<double>(num_batches * c.num_tokens);
  fmt::print("{}, {}: {} rank(s) of {} thread(s), {}; {} micro-batches of {} tokens\n", c.name, arguments.precision,
             world.size(), num_threads(), layout.to_string(), num_batches, c.num_tokens);
  fmt::print("  {:.1f} ms a step   {:.0f} tokens/s   {:.0f} for each rank   memory of the first {}\n", 1e3 * median,
             tokens / median, tokens / median / static_cast<double>(world.size()),
             format_bytes(session.book().total_bytes()));
  for (size_t i = 0; i < groups.size(); ++i)
    print_traffic(groups[i].first, *groups[i].second, before[i], arguments.steps);
  if (layout.overlap)
    fmt::print("  of what runs beside computation, that waited {:.1f} ms\n",
               1e3 * (session.overlap_wait_seconds() - waited) / static_cast<double>(arguments.steps));
}

}  // namespace
}  // namespace temper::bench

int main(int argc, char** argv) {
  using namespace temper;
  bench::Arguments arguments;
  std::string schedule = "1f1b";
  CLI::App app("training steps on several ranks");
  app.add_option("--case", arguments.name);
  app.add_option("--precision", arguments.precision)->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--dp", arguments.layout.dp);
  app.add_option("--ep", arguments.layout.ep);
  app.add_option("--pp", arguments.layout.pp);
  app.add_option("--zero", arguments.layout.zero);
  app.add_option("--schedule", schedule)->check(CLI::IsMember({"1f1b", "interleaved", "zero-bubble"}));
  app.add_option("--chunks", arguments.layout.chunks);
  app.add_flag("--overlap", arguments.layout.overlap);
  app.add_option("--micro-batches", arguments.micro_batches)->check(CLI::PositiveNumber);
  app.add_option("--steps", arguments.steps)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    arguments.layout.schedule = parallel::schedule_of(schedule);
    const auto world = comm::open_world();
    bench::run(world->comm(), arguments);
    world->close();
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "scaling: {}\n", error.what());
    return exit_code(error.code());
  }
}
