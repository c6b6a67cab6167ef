// Speed of training steps on several ranks, for how long ranks waited for one another, and what the formulas of
// plan/layout_time.h say of it.
//
//   mpirun -n N build/bench/scaling [--case NAME] [--dp N] [--ep N] [--pp N] [--cp N] [--tp N] [--zero N]
//                                   [--schedule 1f1b|interleaved|zero-bubble] [--chunks N] [--micro-batches N]
//                                   [--steps N] [--precision bf16|fp32] [--tflops X] [--bandwidth X] [--link X]
//                                   [--overlap]
//   mpirun -n N build/bench/scaling --beside-one [the same]         and one rank alone, in turns
//   mpirun -n N build/bench/scaling --all [--axis dp|ep|pp|cp|tp]   every layout of N ranks, or those along one axis
//
// Run it from the repository's root, without mpirun for one rank, and with TEMPER_NUM_THREADS=1 where ranks share a
// machine. --micro-batches counts those of a step for each rank: weak scaling in work, while cp and tp cut every single
// one. --one: one for all ranks, strong scaling. Reports the median of --steps steps after one that warms up: tokens/s
// of all ranks, and for each group how often and how much (of the first rank), and how long all ranks waited in it on
// average. --beside-one: after every step the first rank makes one with its micro-batches alone while the others sleep,
// so that what the machine's speed does over minutes is in both; how near N such ranks the layout comes, by the medians
// and by every pair. --all: one line for each layout, then how far the formulas keep its order. The speeds that they
// take a rank for are those of [layout].
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "comm/world.h"
#include "plan/layout_time.h"
#include "step_rig.h"
#include "train/session.h"
#include "train/step.h"

namespace temper::bench {
namespace {

struct Arguments {
  std::string name = "activated-30m", precision = "bf16", axis;
  parallel::Layout layout;
  int64_t micro_batches = 4, steps = 3;
  bool all = false, one = false, beside_one = false;
  double tflops = 0, bandwidth = 0, link = 0;
};

const StepCase& case_of(const std::string& name) {
  for (const StepCase& c : kStepCases)
    if (name == c.name) return c;
  fail(ErrorCode::kInvalidArgument, "no case {}; bench/step.cc names them", name);
}

struct GroupTraffic {
  std::string name;
  double calls = 0, bytes = 0, wait_seconds = 0;  // of a step
};

struct Measured {
  parallel::Layout layout;
  std::vector<double> all_seconds;  // of every step
  double seconds = 0;               // median
  double overlap_wait_seconds = 0;  // of a step, for what runs beside computation
  int64_t num_tokens = 0, planned_bytes = 0;
  std::vector<GroupTraffic> groups;  // of the first rank; waiting: of all, on average
  plan::LayoutTime formula;
};

// What all cases and layouts have in common.
struct Rig {
  comm::Comm& world;
  const Arguments& arguments;
  const StepCase& c;
  plan::DryRunRequest request;
  plan::RankSpeed speed;

  Rig(comm::Comm& world, const Arguments& arguments) : world(world), arguments(arguments), c(case_of(arguments.name)) {
    request.config = model::parse_config(read_file(c.config), c.config);
    request.options.precision = arguments.precision == "fp32" ? layers::Precision::kFp32 : layers::Precision::kBf16;
    request.options.max_tokens = c.num_tokens, request.options.max_document = c.document_tokens;
    request.num_micro_batches = arguments.one ? 1 : arguments.micro_batches * world.size();
    if (arguments.tflops > 0) speed.flops = arguments.tflops * 1e12;
    if (arguments.bandwidth > 0) speed.memory = arguments.bandwidth * 1e9;
    if (arguments.link > 0) speed.link = arguments.link * 1e9;
  }
};

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

// A model on a layout, ready to make steps; each on num_micro_batches equal ones.
class Trainee {
 public:
  Trainee(const Rig& rig, comm::Comm& world, const parallel::Layout& layout, int64_t num_micro_batches)
      : ranks_(parallel::join_mesh(world, layout)),
        options_(placed(rig, num_micro_batches)),
        session_(train::backend_for(options_.precision), rig.request.config, options_, train::StateMemory::kNone,
                 &ranks_),
        objective_(objective::make_objective("pretrain", {})),
        adamw_({}),
        step_({session_.ctx(), session_.model(), *objective_, session_.norm_meter(), adamw_, 1.0}),
        batches_(num_micro_batches, random_batch(rig.c, rig.request.config.vocab_size)) {
    session_.model().initialize(session_.ctx(), 1);
    session_.model().weights_updated(session_.ctx());
  }

  // Seconds.
  double step() {
    const double start = now_seconds();
    step_.compute(batches_, 1e-4);
    step_.update();
    return now_seconds() - start;
  }

  const parallel::Ranks& ranks() const { return ranks_; }
  const train::Session& session() const { return session_; }

 private:
  model::ModelOptions placed(const Rig& rig, int64_t num_micro_batches) const {
    model::ModelOptions options = rig.request.options;
    ranks_.place(rig.request.config, num_micro_batches, options);
    return options;
  }

  const parallel::Ranks ranks_;
  const model::ModelOptions options_;
  train::Session session_;
  const std::unique_ptr<objective::Objective> objective_;
  optim::Adamw adamw_;
  train::Step step_;
  const std::vector<layers::MicroBatch> batches_;
};

// after_step is called after every step that counts.
Measured measure(
    const Rig& rig, const parallel::Layout& layout, const std::function<void()>& after_step = [] {}) {
  Trainee trainee(rig, rig.world, layout, rig.request.num_micro_batches);
  trainee.step();
  const auto groups = trainee.ranks().axes();
  std::vector<comm::Traffic> before;
  for (const auto& [name, group] : groups) before.push_back(group->traffic());
  const double waited = trainee.session().overlap_wait_seconds();

  Measured out;
  for (int64_t i = 0; i < rig.arguments.steps; ++i) {
    out.all_seconds.push_back(trainee.step());
    after_step();
  }
  const auto num_steps = static_cast<double>(rig.arguments.steps);
  out.layout = layout, out.seconds = median(out.all_seconds);
  out.num_tokens = rig.request.num_micro_batches * rig.c.num_tokens;
  out.planned_bytes = trainee.session().book().total_bytes();
  out.formula = plan::LayoutTimes(rig.request, rig.speed).of(layout);
  out.overlap_wait_seconds = (trainee.session().overlap_wait_seconds() - waited) / num_steps;
  for (size_t i = 0; i < groups.size(); ++i) {
    const comm::Traffic now = groups[i].second->traffic();
    const auto per_step = [&](auto end, auto begin) { return static_cast<double>(end - begin) / num_steps; };
    auto wait_seconds = static_cast<float>(per_step(now.wait_seconds, before[i].wait_seconds));
    rig.world.all_reduce(nullptr, View(&wait_seconds, DType::kF32, {1}), comm::Reduce::kSum, {"waiting"});
    out.groups.push_back({groups[i].first, per_step(now.num_calls, before[i].num_calls),
                          per_step(now.num_bytes, before[i].num_bytes),
                          static_cast<double>(wait_seconds) / static_cast<double>(rig.world.size())});
  }
  return out;
}

void print(const Rig& rig, const Measured& m) {
  const auto tokens = static_cast<double>(m.num_tokens);
  fmt::print("{}, {}: {} rank(s) of {} thread(s), {}; {} micro-batches of {} tokens\n", rig.c.name,
             rig.arguments.precision, rig.world.size(), num_threads(), m.layout.to_string(),
             rig.request.num_micro_batches, rig.c.num_tokens);
  fmt::print("  {:.1f} ms a step   {:.0f} tokens/s   {:.0f} for each rank   memory of the first {}\n", 1e3 * m.seconds,
             tokens / m.seconds, tokens / m.seconds / static_cast<double>(rig.world.size()),
             format_bytes(m.planned_bytes));
  for (const GroupTraffic& g : m.groups)
    fmt::print("  {:<6} {:>6.0f} calls  {:>9.1f} MiB  waited {:>7.1f} ms\n", g.name, g.calls, g.bytes / (1 << 20),
               1e3 * g.wait_seconds);
  if (m.layout.overlap)
    fmt::print("  of what runs beside computation, that waited {:.1f} ms\n", 1e3 * m.overlap_wait_seconds);
  fmt::print("  by formulas {:.1f} ms: {}\n", 1e3 * m.formula.step, plan::describe(m.formula));
}

// Spearman's: of the places that two orders give to the same things, 1 for the same order.
double rank_correlation(const std::vector<Measured>& list) {
  const auto places = [&](const auto& value) {
    std::vector<double> place;
    for (const Measured& a : list)
      place.push_back(static_cast<double>(
          std::count_if(list.begin(), list.end(), [&](const Measured& b) { return value(b) < value(a); })));
    return place;
  };
  const std::vector<double> x = places([](const Measured& m) { return m.seconds; });
  const std::vector<double> y = places([](const Measured& m) { return m.formula.step; });
  const auto n = static_cast<double>(list.size());
  double squares = 0;
  for (size_t i = 0; i < x.size(); ++i) squares += (x[i] - y[i]) * (x[i] - y[i]);
  return 1 - 6 * squares / (n * (n * n - 1));
}

bool is_along(const parallel::Layout& layout, const std::string& axis) {
  if (axis.empty()) return true;
  if (axis == "dp") return layout.dp > 1 && layout.ep == 1;
  return (axis == "ep" ? layout.ep : axis == "pp" ? layout.pp : axis == "cp" ? layout.cp : layout.tp) > 1;
}

// Every layout of the world: with each zero, and pipelines in each order, interleaved ones with two chunks.
std::vector<parallel::Layout> layouts_of(const Rig& rig) {
  using parallel::Schedule;
  std::vector<parallel::Layout> list;
  for (const Schedule schedule : {Schedule::kOneFOneB, Schedule::kZeroBubble, Schedule::kInterleaved}) {
    for (int64_t zero = 0; zero <= 3; ++zero) {
      parallel::Layout like;
      like.zero = zero, like.schedule = schedule, like.chunks = schedule == Schedule::kInterleaved ? 2 : 1;
      for (const parallel::Layout& layout : parallel::valid_layouts(rig.world.size(), rig.request.config, like)) {
        // Stages of one rank have nothing to share out.
        const bool is_another =
            layout.pp == 1 ? schedule == Schedule::kOneFOneB : layout.pp < rig.world.size() || zero == 0;
        if (is_another && is_along(layout, rig.arguments.axis)) list.push_back(layout);
      }
    }
  }
  return list;
}

void measure_all(const Rig& rig) {
  std::vector<Measured> list;
  for (const parallel::Layout& layout : layouts_of(rig)) {
    list.push_back(measure(rig, layout));
    const Measured& m = list.back();
    if (rig.world.rank() == 0)
      fmt::print("{:<36} {:>8.1f} ms {:>7.0f} tokens/s   by formulas {:>8.1f} ms, {:.2f}\n", m.layout.to_string(),
                 1e3 * m.seconds, static_cast<double>(m.num_tokens) / m.seconds, 1e3 * m.formula.step,
                 m.formula.step / m.seconds);
    std::fflush(stdout);
  }
  if (rig.world.rank() > 0) return;
  const auto by_formula = std::min_element(
      list.begin(), list.end(), [](const auto& a, const auto& b) { return a.formula.step < b.formula.step; });
  const auto best =
      std::min_element(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  fmt::print("rank correlation {:.2f}; the formulas would take \"{}\", {:.1f} % slower than the best, \"{}\"\n",
             rank_correlation(list), by_formula->layout.to_string(), 100 * (by_formula->seconds / best->seconds - 1),
             best->layout.to_string());
}

// Weak scaling: as many micro-batches for one rank alone as for each of many, step by step in turns.
void measure_beside_one(const Rig& rig, const parallel::Layout& layout) {
  const bool is_first = rig.world.rank() == 0;
  const auto self = comm::self_comm();
  std::optional<Trainee> alone;
  if (is_first) {
    parallel::Layout one;
    one.dp = 1;
    alone.emplace(rig, *self, one, rig.arguments.micro_batches);
    alone->step();
  }
  std::vector<double> alone_seconds;
  const Measured m = measure(rig, layout, [&] {
    if (is_first) alone_seconds.push_back(alone->step());
    rig.world.barrier(nullptr, {"one rank alone"});
  });
  if (!is_first) return;
  print(rig, m);
  // The same work for every rank: what a step takes alone, by what it takes among others.
  std::string pairs;
  for (size_t i = 0; i < alone_seconds.size(); ++i)
    pairs += fmt::format(" {:.1f}", 100 * alone_seconds[i] / m.all_seconds[i]);
  fmt::print("  one rank alone {:.1f} ms a step: {:.1f} % of its speed for each rank; pair by pair{}\n",
             1e3 * median(alone_seconds), 100 * median(alone_seconds) / m.seconds, pairs);
}

void run(comm::Comm& world, const Arguments& arguments) {
  const Rig rig(world, arguments);
  if (arguments.all) return measure_all(rig);
  if (arguments.beside_one)
    return measure_beside_one(rig, parallel::resolve(arguments.layout, world.size(), rig.request.config));
  const Measured m = measure(rig, parallel::resolve(arguments.layout, world.size(), rig.request.config));
  if (world.rank() == 0) print(rig, m);
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
  auto* all = app.add_flag("--all", arguments.all);
  auto* one = app.add_flag("--one", arguments.one);
  app.add_flag("--beside-one", arguments.beside_one)->excludes(one, all);
  app.add_option("--axis", arguments.axis)->check(CLI::IsMember({"dp", "ep", "pp", "cp", "tp"}))->needs("--all");
  app.add_option("--dp", arguments.layout.dp);
  app.add_option("--ep", arguments.layout.ep);
  app.add_option("--pp", arguments.layout.pp);
  app.add_option("--cp", arguments.layout.cp);
  app.add_option("--tp", arguments.layout.tp);
  app.add_option("--zero", arguments.layout.zero);
  app.add_option("--schedule", schedule)->check(CLI::IsMember({"1f1b", "interleaved", "zero-bubble"}));
  app.add_option("--chunks", arguments.layout.chunks);
  app.add_flag("--overlap", arguments.layout.overlap);
  app.add_option("--micro-batches", arguments.micro_batches)->check(CLI::PositiveNumber);
  app.add_option("--steps", arguments.steps)->check(CLI::PositiveNumber);
  app.add_option("--tflops", arguments.tflops)->check(CLI::PositiveNumber);
  app.add_option("--bandwidth", arguments.bandwidth)->check(CLI::PositiveNumber);
  app.add_option("--link", arguments.link)->check(CLI::PositiveNumber);
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
