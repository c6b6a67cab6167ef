// A whole DeepSeek-V4 model: forward and hand-written backward over packed micro-batches.
//
//   Book book;  model.declare(book);  Arena arena(device, book);  model.initialize(...) or load weights;
//   model.forward(ctx, batch);                      // keeps what backward needs
//   model.logprobs(ctx)                             // log p(target) where targets[t] >= 0
//   model.backward(ctx, dlogp)                      // accumulates parameter gradients from dLoss/dlogp
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "layers/ctx.h"
#include "layers/parameter.h"
#include "layers/token_layout.h"
#include "model/config.h"
#include "model/keep_policy.h"
#include "tensor/book.h"

namespace temper::model {

struct ModelOptions {
  layers::Precision precision = layers::Precision::kFp32;
  int64_t max_tokens = 0;        // capacity T of a micro-batch
  int64_t max_document = 0;      // longest document: length of the rotary tables; 0 = max_tokens
  int64_t logit_chunk = 1024;    // tokens whose logits exist at once
  Recompute recompute = Recompute::kNone;
  bool train = true;             // false: no gradients, moments or saved tensors are declared
  bool optimizer = true;         // with train: declare AdamW moments
};

// Per position of the micro-batch; 0 where targets is -1.
struct TokenResults {
  std::vector<float> logp_T;    // log p(target)
  std::vector<int32_t> best_T;  // most likely token
};

class Model {
 public:
  Model(Config config, ModelOptions options);
  ~Model();

  // Declares every tensor of the run. Call once, before the arena is made; the Model must outlive the Book's grant.
  void declare(Book& book);

  // Fills the constant tables (rotary angles). Call once, after the arena is made.
  void prepare(layers::Ctx& ctx);

  // Random start as in transformers: normal(0, initializer_range) for matrices, ones for norms, zeros for sinks and
  // biases; the hash table gets K distinct experts per token. A value depends on seed, tensor name and element index only.
  void initialize(layers::Ctx& ctx, uint64_t seed);

  // Copies master into value for every trainable parameter (after loading masters).
  void refresh_values(layers::Ctx& ctx);
  void zero_gradients(layers::Ctx& ctx);

  // Runs the trunk on a micro-batch of at most max_tokens tokens.
  void forward(layers::Ctx& ctx, const layers::MicroBatch& batch);
  // After forward: results at positions with targets >= 0, by chunks.
  TokenResults logprobs(layers::Ctx& ctx);
  // After logprobs: dlogp[t] = dLoss/dlogp_t. Accumulates into every trainable parameter's grad.
  void backward(layers::Ctx& ctx, std::span<const float> dlogp_T);
  // After forward: whole logits [T, V] to the host, as float; for verify and generate, by chunks.
  void logits(layers::Ctx& ctx, int64_t begin, int64_t end, std::vector<float>& logits_TV);

  // In the order of transformers' state dict: embedding, layers, head collapse, norm, head.
  const std::vector<layers::Parameter*>& parameters() const { return parameters_; }
  const Config& config() const { return config_; }
  const ModelOptions& options() const { return options_; }

  // Model FLOPs of forward + backward of the current batch's documents, by the formula of docs/numerics.md (no recompute).
  double train_flops(const layers::HostLayout& layout) const;

  struct Impl;
  Impl& impl() { return *impl_; }  // for tests and the decoder, which look inside a forward pass

 private:
  Config config_;
  ModelOptions options_;
  std::vector<layers::Parameter*> parameters_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::model
