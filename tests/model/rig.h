// A whole model with memory, ready to run: what every test of model/ needs.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "model/model.h"

namespace temper::model {

// Weights of the losses beside the main one; the gradient of their weighted sum is what is accumulated.
struct ExtraLosses {
  double mtp = 0, balance = 0, indexer = 0;
};

class Rig {
 public:
  // options.max_tokens must cover the batches. The device tables are prepared; parameters are zero until set.
  Rig(const Config& config, ModelOptions options, const backend::Backend& backend);
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;
  ~Rig();

  Model& model() { return model_; }
  layers::Ctx& ctx() { return ctx_; }

  layers::Parameter& parameter(const std::string& name);
  // Writes the weight of record, or the value of a buffer; refresh() makes the layers see it.
  void set(layers::Parameter& parameter, std::span<const double> values);
  void refresh() { model_.refresh_values(ctx_); }
  // A contiguous device tensor as doubles.
  std::vector<double> read(const View& view) const;

  // Forward and log-probabilities; returns -sum over positions of weight * log p(target), + mtp * the same of the
  // prediction block.
  double loss(const layers::MicroBatch& batch, const Choices* given = nullptr, const ExtraLosses& extra = {});
  // The same, and adds to every gradient.
  double add_gradients(const layers::MicroBatch& batch, const ExtraLosses& extra = {});
  // The same, after clearing them.
  double loss_and_gradients(const layers::MicroBatch& batch, const ExtraLosses& extra = {});
  // Logits [T, V] of a forward pass over batch.
  std::vector<double> logits(const layers::MicroBatch& batch);

 private:
  Model model_;
  Book book_;
  std::unique_ptr<backend::Arena> arena_;
  layers::Ctx ctx_;
};

// Documents packed into one micro-batch; every position but a document's last predicts the next token with weight 1.
layers::MicroBatch next_token_batch(const std::vector<std::vector<int32_t>>& documents);

double norm(std::span<const double> values);

}  // namespace temper::model
