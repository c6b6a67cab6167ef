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

#include "base/thread.h"
#include "layers/ctx.h"
#include "layers/parameter.h"
#include "layers/token_layout.h"
#include "model/config.h"
#include "model/keep_policy.h"
#include "tensor/book.h"

namespace temper::model {

struct ModelOptions {
  layers::Precision precision = layers::Precision::kFp32;
  int64_t max_tokens = 0;      // capacity T of a micro-batch
  int64_t max_document = 0;    // longest document: length of the rotary tables; 0 = max_tokens
  int64_t logit_chunk = 1024;  // tokens whose logits exist at once
  Recompute recompute = Recompute::kNone;
  bool train = true;                            // false: no gradients, moments or saved tensors are declared
  bool optimizer = true;                        // with train: declare AdamW moments
  int64_t num_threads = temper::num_threads();  // DeviceInfo::num_threads; sizes the workspace of attention's backward
};

// Per position of the micro-batch; 0 where targets is -1.
struct TokenResults {
  std::vector<double> logp_T;   // log p(target)
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
  // biases; the hash table gets K distinct experts per token. A value depends on seed, tensor name and element index
  // only.
  void initialize(layers::Ctx& ctx, uint64_t seed);

  // Copies master into value for every trainable parameter (after loading masters).
  void refresh_values(layers::Ctx& ctx);
  void zero_gradients(layers::Ctx& ctx);

  // Runs the trunk on a micro-batch of 1 to max_tokens tokens. With given_choices the router's experts and the
  // indexer's entries are not computed but read from choices(layer), which the caller has filled (replay).
  void forward(layers::Ctx& ctx, const layers::MicroBatch& batch, bool given_choices = false);
  // After forward: results at positions with targets >= 0, by chunks.
  TokenResults logprobs(layers::Ctx& ctx);
  // After logprobs: dlogp[t] = dLoss/dlogp_t. Accumulates into every trainable parameter's grad.
  void backward(layers::Ctx& ctx, std::span<const double> dlogp_T);
  // After forward: rows [begin, end) of the logits [T, V], to the host; for verify and generate, by chunks.
  void logits(layers::Ctx& ctx, int64_t begin, int64_t end, std::vector<double>& logits_TV);

  // In the order of transformers' state dict: embedding, layers, head collapse, norm, head.
  const std::vector<layers::Parameter*>& parameters() const { return parameters_; }
  const Config& config() const { return config_; }
  const ModelOptions& options() const { return options_; }

  // Model FLOPs of forward + backward of documents with this layout and num_targets trained positions (model/flops.cc).
  double train_flops(const layers::HostLayout& layout, int64_t num_targets) const;

  // The discrete choices of the last forward pass: expert_TK [T, K] i32 ascending, selected_TA [T, A] i32 (CSA layers;
  // only meaningful where a token sees more than index_topk entries).
  struct Choices {
    View expert_TK, selected_TA;
  };
  Choices choices(int64_t layer) const;

  // Streams [T, M, D] before a layer (0) ... after the last (num_hidden_layers); intact after forward unless recompute
  // is kFull or train is false.
  View streams(int64_t layer) const;

  struct Impl;
  Impl& impl() { return *impl_; }  // for the decoder, which drives the layers itself

 private:
  Config config_;
  ModelOptions options_;
  std::vector<layers::Parameter*> parameters_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::model
