// Speed of whole training steps: forward, loss, backward, gradient norm, AdamW.
//
//   build/bench/step [--json] [--case NAME] [--precision fp32|bf16] [--repeats N] [--threads N]
//
// Run it from the repository's root. Each case packs documents of random tokens into one micro-batch and reports the
// median step. FLOPs are the model's by Model::train_flops (post-training 4.9, no recompute, frozen indexer forward
// only); the peak is this machine's, measured in the same process for the activation dtype. The splits, by group of ops
// and by op, come from further steps on a TimedBackend.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <numeric>

#include "backend/registry.h"
#include "backend/timed.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "step_rig.h"
#include "train/metrics.h"

namespace temper::bench {
namespace {

struct Result {
  double seconds = 0;  // median
  double flops = 0;    // of a step
  backend::Peak peak;  // of the machine, for products in the activation dtype
  int64_t num_parameters = 0, planned_bytes = 0, peak_bytes = 0;
};

// What a step's time goes to.
enum class Group { kProducts, kAttention, kOptimizer, kOther, kCount };
constexpr const char* kGroupNames[] = {"products", "attention_and_indexer", "optimizer", "everything_else"};

Group group_of(backend::OpId id) {
  using enum backend::OpId;
  switch (id) {
    case matmul:
    case grouped_matmul:
    case grouped_matmul_dw:
    case logprob_forward:
    case logprob_backward:
      return Group::kProducts;
    case attention_forward:
    case attention_backward:
    case index_topk:
    case indexer_loss:
      return Group::kAttention;
    case sum_squares:
    case adamw:
      return Group::kOptimizer;
    default:
      return Group::kOther;
  }
}

Result time_steps(Bench& bench, layers::Ctx& ctx, int repeats) {
  bench.prepare(ctx);
  bench.step(ctx);  // warms caches
  bench.step(ctx);
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const double start = now_seconds();
    bench.step(ctx);
    seconds.push_back(now_seconds() - start);
  }
  std::nth_element(seconds.begin(), seconds.begin() + repeats / 2, seconds.end());
  return {seconds[repeats / 2],   bench.flops(),         {},
          bench.num_parameters(), bench.planned_bytes(), train::peak_resident_bytes()};
}

// Further steps with the time of every op.
class Split {
 public:
  Split(Bench& bench, const backend::Backend& backend, layers::Precision precision) : timed_(backend) {
    layers::Ctx ctx = make_ctx(timed_.backend(), timed_.stream(), precision);
    const double start = now_seconds();
    for (int i = 0; i < kNumSteps; ++i) bench.step(ctx);
    seconds_ = (now_seconds() - start) / kNumSteps;
  }

  // Of the steps' time; what no op claims is everything else.
  double percent(Group group) const {
    std::array<double, static_cast<size_t>(Group::kCount)> seconds{};
    double rest = seconds_;
    for (int op = 0; op < static_cast<int>(backend::OpId::kCount); ++op) {
      const Group its = group_of(static_cast<backend::OpId>(op));
      seconds[static_cast<size_t>(its)] += op_seconds(op);
      if (its != Group::kOther) rest -= op_seconds(op);
    }
    seconds[static_cast<size_t>(Group::kOther)] = rest;
    return 100 * seconds[static_cast<size_t>(group)] / seconds_;
  }

  // Time, share and rate of every op that took at least a hundredth of the step, longest first.
  void print_ops() const {
    fmt::print("    {:<28} {:>9} {:>7} {:>7} {:>9}\n", "op", "ms/step", "share", "calls", "GFLOP/s");
    std::vector<int> order(static_cast<size_t>(backend::OpId::kCount));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return op_seconds(a) > op_seconds(b); });
    for (const int op : order) {
      const backend::OpTime& time = timed_.time(static_cast<backend::OpId>(op));
      if (op_seconds(op) < 0.01 * seconds_) break;
      fmt::print("    {:<28} {:9.2f} {:6.1f}% {:7d} {:9.1f}\n", backend::kOpNames[op], 1e3 * op_seconds(op),
                 100 * op_seconds(op) / seconds_, time.num_calls / kNumSteps, time.flops / time.seconds * 1e-9);
    }
  }

 private:
  static constexpr int kNumSteps = 3;
  double op_seconds(int op) const { return timed_.time(static_cast<backend::OpId>(op)).seconds / kNumSteps; }

  backend::TimedBackend timed_;
  double seconds_ = 0;  // of a step
};

void print_groups(const Split& split) {
  for (int group = 0; group < static_cast<int>(Group::kCount); ++group)
    fmt::print("{}{} {:.1f} %", group == 0 ? "  " : ", ", kGroupNames[group], split.percent(static_cast<Group>(group)));
  fmt::print("\n");
}

void print_json(const StepCase& c, const char* precision, const std::string& machine, const Result& result,
                const Split& split) {
  nlohmann::ordered_json percents;
  for (int group = 0; group < static_cast<int>(Group::kCount); ++group)
    percents[kGroupNames[group]] = split.percent(static_cast<Group>(group));
  fmt::print("{}\n", nlohmann::ordered_json{{"case", fmt::format("{}-{}", c.name, precision)},
                                            {"tokens_per_second", c.num_tokens / result.seconds},
                                            {"percent_of_peak",
                                             100 * result.flops / result.seconds / result.peak.flops_per_second},
                                            {"peak_memory_bytes", result.peak_bytes},
                                            {"planned_bytes", result.planned_bytes},
                                            {"step_ms", 1e3 * result.seconds},
                                            {"gflop_per_step", 1e-9 * result.flops},
                                            {"peak_gflop_per_second", 1e-9 * result.peak.flops_per_second},
                                            {"split", percents},
                                            {"machine", machine}}
                         .dump());
}

void print_result(const StepCase& c, const char* precision, const Result& result) {
  fmt::print("{}, {}: {} tokens in documents of {}, {:.2f}M parameters\n", c.name, precision, c.num_tokens,
             c.document_tokens, 1e-6 * result.num_parameters);
  fmt::print("  {:.1f} ms a step   {:.0f} tokens/s   {:.2f} GFLOP a step\n", 1e3 * result.seconds,
             c.num_tokens / result.seconds, 1e-9 * result.flops);
  fmt::print("  {:.1f} GFLOP/s = {:.1f} % of {}   memory {} (planned {})\n", 1e-9 * result.flops / result.seconds,
             100 * result.flops / result.seconds / result.peak.flops_per_second, result.peak.name,
             format_bytes(result.peak_bytes), format_bytes(result.planned_bytes));
}

void run_case(const StepCase& c, layers::Precision precision, int repeats, bool json) {
  repeats = std::min(repeats, c.max_repeats);
  const backend::Backend& backend = backend::cpu();
  const char* precision_name = precision == layers::Precision::kBf16 ? "bf16" : "fp32";
  backend::Stream* stream = backend.device.stream_create();
  layers::Ctx ctx = make_ctx(backend, stream, precision);
  const backend::Peak peak = backend.device.peak(ctx.act);
  train::reset_peak_resident();  // the measurement's own memory is not the run's
  {
    Bench bench(backend, c, precision);
    Result result = time_steps(bench, ctx, repeats);
    result.peak = peak;
    const Split split(bench, backend, precision);
    if (json) {
      print_json(c, precision_name, backend.device.info().name, result, split);
    } else {
      print_result(c, precision_name, result);
      print_groups(split);
      split.print_ops();
    }
  }
  backend.device.stream_destroy(stream);
}

}  // namespace
}  // namespace temper::bench

int main(int argc, char** argv) {
  CLI::App app("step: speed of whole training steps");
  bool json = false;
  std::string only, precision;
  int repeats = 7, threads = temper::num_threads();
  app.add_flag("--json", json, "one JSON object per case and line");
  app.add_option("--case", only, "run only this case: demo | activated-30m | long-4k | long-16k | long-64k");
  app.add_option("--precision", precision, "run only this precision")->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--repeats", repeats, "timed steps per case")->check(CLI::PositiveNumber);
  app.add_option("--threads", threads, "threads of the team")->check(CLI::Range(1, 1024));
  CLI11_PARSE(app, argc, argv);
  temper::set_num_threads(threads);
  try {
    for (const auto& c : temper::bench::kStepCases) {
      if (!only.empty() && only != c.name) continue;
      if (precision != "bf16") temper::bench::run_case(c, temper::layers::Precision::kFp32, repeats, json);
      if (precision != "fp32") temper::bench::run_case(c, temper::layers::Precision::kBf16, repeats, json);
    }
    return 0;
  } catch (const temper::Error& error) {
    fmt::print(stderr, "step: {}: {}\n", temper::error_code_name(error.code()), error.what());
    return temper::exit_code(error.code());
  }
}
