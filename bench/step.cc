// Speed of whole training steps: forward, loss, backward, gradient norm, AdamW.
//
//   build/bench/step [--json] [--case NAME] [--precision fp32|bf16] [--repeats N]     run from the repository's root
//
// Each case packs documents of random tokens into one micro-batch and reports the median step. FLOPs are the model's by
// Model::train_flops (post-training 4.9, no recompute, frozen indexer forward only); the peak is this machine's,
// measured in the same process for the activation dtype. The split by op comes from further steps on a TimedBackend.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "backend/timed.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/philox.h"
#include "model/model.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "train/metrics.h"

namespace temper {
namespace {

struct Case {
  const char* name;
  const char* config;  // from the repository's root
  int64_t num_tokens, document_tokens;
  int max_repeats = 1000;  // steps of several seconds are not repeated often
};

constexpr Case kCases[] = {
    {"demo", "examples/demo/config.json", 4096, 128},
    {"activated-30m", "bench/activated_30m.json", 2048, 512},
    {"long-4k", "bench/long_context.json", 4096, 4096},
    {"long-64k", "bench/long_context.json", 65536, 65536, 2},
};

struct Result {
  double seconds = 0;  // median
  double flops = 0;    // of a step
  backend::Peak peak;  // of the machine, for products in the activation dtype
  int64_t num_parameters = 0, planned_bytes = 0, peak_bytes = 0;
};

// Documents of equal length with random tokens; every token but a document's last has the next one as its target.
layers::MicroBatch random_batch(const Case& c, int64_t vocab_size) {
  const Philox random{1, RandomPurpose::kTest};
  layers::MicroBatch batch;
  for (int64_t t = 0; t < c.num_tokens; ++t) {
    if (t % c.document_tokens == 0) batch.cu_seqlens.push_back(static_cast<int32_t>(t));
    batch.tokens.push_back(static_cast<int32_t>(random.below(0, t, vocab_size)));
  }
  batch.cu_seqlens.push_back(static_cast<int32_t>(c.num_tokens));
  for (int64_t t = 0; t < c.num_tokens; ++t) {
    const bool last = (t + 1) % c.document_tokens == 0;
    batch.targets.push_back(last ? -1 : batch.tokens[t + 1]);
    batch.weights.push_back(last ? 0.0f : 1.0f);
  }
  return batch;
}

// A model with everything that a step needs, on one micro-batch.
class Bench {
 public:
  Bench(const backend::Backend& backend, const Case& c, layers::Precision precision)
      : model_(model::parse_config(read_file(c.config), c.config), options(c, precision)),
        batch_(random_batch(c, model_.config().vocab_size)),
        layout_(
            layers::make_layout(batch_.cu_seqlens, model_.config().sliding_window, model_.config().compress_rates())) {
    model_.declare(book_);
    norms_ = std::make_unique<optim::NormMeter>(model_.parameters());
    norms_->declare(book_);
    updates_ = std::make_unique<optim::UpdateMeter>(model_.parameters());
    updates_->declare(book_, layers::acc_dtype(precision));
    arena_ = std::make_unique<backend::Arena>(backend.device, book_);
  }

  void prepare(layers::Ctx& ctx) {
    model_.prepare(ctx);
    model_.initialize(ctx, 1);
  }

  void step(layers::Ctx& ctx) {
    model_.zero_gradients(ctx);
    model_.forward(ctx, batch_);
    model_.logprobs(ctx);
    std::vector<double> dlogp_T(batch_.tokens.size());
    for (size_t t = 0; t < dlogp_T.size(); ++t) dlogp_T[t] = -batch_.weights[t] / num_targets();
    model_.backward(ctx, {dlogp_T, {}});
    const optim::GradientNorms norms = norms_->measure(ctx);
    adamw_.step(ctx, model_.parameters(), 1e-4, optim::clip_factor(norms.global, 1.0), updates_.get());
    updates_->read(ctx);
    model_.moe_statistics(ctx);
    ctx.device.stream_sync(ctx.stream);
  }

  double flops() const { return model_.train_flops(layout_, num_targets()); }
  int64_t num_targets() const {
    return static_cast<int64_t>(batch_.tokens.size() - (batch_.cu_seqlens.size() - 1));  // all but each document's last
  }
  int64_t planned_bytes() const { return arena_->allocated_bytes(); }
  int64_t num_parameters() const {
    int64_t count = 0;
    for (const auto* parameter : model_.parameters())
      if (parameter->master.defined()) count += parameter->shape.size();
    return count;
  }

 private:
  static model::ModelOptions options(const Case& c, layers::Precision precision) {
    model::ModelOptions options;
    options.precision = precision;
    options.max_tokens = c.num_tokens;
    options.max_document = c.document_tokens;
    return options;
  }

  model::Model model_;
  layers::MicroBatch batch_;
  layers::HostLayout layout_;
  Book book_;
  std::unique_ptr<optim::NormMeter> norms_;
  std::unique_ptr<optim::UpdateMeter> updates_;
  std::unique_ptr<backend::Arena> arena_;
  optim::Adamw adamw_{optim::AdamwOptions{}};
};

layers::Ctx make_ctx(const backend::Backend& backend, backend::Stream* stream, layers::Precision precision) {
  return {backend.ops, backend.device, stream, layers::act_dtype(precision), layers::acc_dtype(precision)};
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

// Time, share and rate of every op that took at least a hundredth of the step, longest first.
void print_split(const backend::TimedBackend& timed, int repeats) {
  double total = 0;
  std::vector<int> order;
  for (int i = 0; i < static_cast<int>(backend::OpId::kCount); ++i) {
    total += timed.time(static_cast<backend::OpId>(i)).seconds;
    order.push_back(i);
  }
  const auto time = [&](int i) -> const backend::OpTime& { return timed.time(static_cast<backend::OpId>(i)); };
  std::sort(order.begin(), order.end(), [&](int a, int b) { return time(a).seconds > time(b).seconds; });
  fmt::print("    {:<28} {:>9} {:>7} {:>7} {:>9}\n", "op", "ms/step", "share", "calls", "GFLOP/s");
  for (const int i : order) {
    if (time(i).seconds < 0.01 * total) break;
    fmt::print("    {:<28} {:9.2f} {:6.1f}% {:7d} {:9.1f}\n", backend::kOpNames[i], 1e3 * time(i).seconds / repeats,
               100 * time(i).seconds / total, time(i).num_calls / repeats, time(i).flops / time(i).seconds * 1e-9);
  }
  fmt::print("    {:<28} {:9.2f}\n", "all ops", 1e3 * total / repeats);
}

void print_json(const Case& c, const char* precision, const std::string& machine, const Result& result) {
  fmt::print("{}\n", nlohmann::ordered_json{{"case", fmt::format("{}-{}", c.name, precision)},
                                            {"tokens_per_second", c.num_tokens / result.seconds},
                                            {"percent_of_peak",
                                             100 * result.flops / result.seconds / result.peak.flops_per_second},
                                            {"peak_memory_bytes", result.peak_bytes},
                                            {"planned_bytes", result.planned_bytes},
                                            {"step_ms", 1e3 * result.seconds},
                                            {"gflop_per_step", 1e-9 * result.flops},
                                            {"peak_gflop_per_second", 1e-9 * result.peak.flops_per_second},
                                            {"machine", machine}}
                         .dump());
}

void print_result(const Case& c, const char* precision, const Result& result) {
  fmt::print("{}, {}: {} tokens in documents of {}, {:.2f}M parameters\n", c.name, precision, c.num_tokens,
             c.document_tokens, 1e-6 * result.num_parameters);
  fmt::print("  {:.1f} ms a step   {:.0f} tokens/s   {:.2f} GFLOP a step\n", 1e3 * result.seconds,
             c.num_tokens / result.seconds, 1e-9 * result.flops);
  fmt::print("  {:.1f} GFLOP/s = {:.1f} % of {}   memory {} (planned {})\n", 1e-9 * result.flops / result.seconds,
             100 * result.flops / result.seconds / result.peak.flops_per_second, result.peak.name,
             format_bytes(result.peak_bytes), format_bytes(result.planned_bytes));
}

void run_case(const Case& c, layers::Precision precision, int repeats, bool json) {
  repeats = std::min(repeats, c.max_repeats);
  const int num_timed_steps = std::min(3, c.max_repeats);
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
    if (json) {
      print_json(c, precision_name, backend.device.info().name, result);
    } else {
      print_result(c, precision_name, result);
      backend::TimedBackend timed(backend);
      layers::Ctx timed_ctx = make_ctx(timed.backend(), timed.stream(), precision);
      for (int i = 0; i < num_timed_steps; ++i) bench.step(timed_ctx);
      print_split(timed, num_timed_steps);
    }
  }
  backend.device.stream_destroy(stream);
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  CLI::App app("step: speed of whole training steps");
  bool json = false;
  std::string only, precision;
  int repeats = 7;
  app.add_flag("--json", json, "one JSON object per case and line");
  app.add_option("--case", only, "run only this case: demo | activated-30m | long-4k | long-64k");
  app.add_option("--precision", precision, "run only this precision")->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--repeats", repeats, "timed steps per case")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    for (const auto& c : temper::kCases) {
      if (!only.empty() && only != c.name) continue;
      if (precision != "bf16") temper::run_case(c, temper::layers::Precision::kFp32, repeats, json);
      if (precision != "fp32") temper::run_case(c, temper::layers::Precision::kBf16, repeats, json);
    }
    return 0;
  } catch (const temper::Error& error) {
    fmt::print(stderr, "step: {}: {}\n", temper::error_code_name(error.code()), error.what());
    return temper::exit_code(error.code());
  }
}
