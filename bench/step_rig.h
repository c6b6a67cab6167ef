// A whole training step of a model of random weights on random tokens, for the programs that measure one.
#pragma once

#include <memory>
#include <vector>

#include "backend/registry.h"
#include "base/file.h"
#include "base/philox.h"
#include "model/model.h"
#include "optim/adamw.h"
#include "optim/clip.h"

namespace temper::bench {

struct StepCase {
  const char* name;
  const char* config;  // from the repository's root
  int64_t num_tokens, document_tokens;
  int max_repeats = 1000;  // steps of several seconds are not repeated often
};

inline constexpr StepCase kStepCases[] = {
    {"demo", "examples/demo/config.json", 4096, 128},         {"activated-30m", "bench/activated_30m.json", 2048, 512},
    {"long-4k", "bench/long_context.json", 4096, 4096},       {"long-16k", "bench/long_context.json", 16384, 16384, 3},
    {"long-64k", "bench/long_context.json", 65536, 65536, 3},
};

// Documents of equal length with random tokens; every token but a document's last has the next one as its target.
inline layers::MicroBatch random_batch(const StepCase& c, int64_t vocab_size) {
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
  Bench(const backend::Backend& backend, const StepCase& c, layers::Precision precision)
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
    std::vector<double> dlogp_T(batch_.tokens.size());
    for (size_t t = 0; t < dlogp_T.size(); ++t) dlogp_T[t] = -batch_.weights[t] / num_targets();
    model_.logprobs(ctx, dlogp_T);
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
  static model::ModelOptions options(const StepCase& c, layers::Precision precision) {
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

inline layers::Ctx make_ctx(const backend::Backend& backend, backend::Stream* stream, layers::Precision precision) {
  return {backend.ops, backend.device, stream, layers::act_dtype(precision), layers::acc_dtype(precision)};
}

}  // namespace temper::bench
