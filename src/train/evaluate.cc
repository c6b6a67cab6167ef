#include "train/evaluate.h"

namespace temper::train {

HeldoutResult evaluate(layers::Ctx& ctx, model::Model& model, std::span<const layers::MicroBatch> batches) {
  HeldoutResult result;
  double loss = 0, weight = 0, num_correct = 0;
  for (const layers::MicroBatch& batch : batches) {
    model.forward(ctx, batch);
    const model::TokenResults results = model.logprobs(ctx);
    for (size_t t = 0; t < batch.tokens.size(); ++t) {
      if (batch.targets[t] < 0 || batch.weights[t] == 0) continue;
      loss -= batch.weights[t] * results.logp_T[t];
      weight += batch.weights[t];
      num_correct += results.best_T[t] == batch.targets[t];
      ++result.num_targets;
    }
  }
  if (result.num_targets == 0) return result;
  result.loss = loss / weight;
  result.accuracy = num_correct / static_cast<double>(result.num_targets);
  return result;
}

}  // namespace temper::train
