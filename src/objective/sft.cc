#include "objective/sft.h"

#include <cmath>
#include <numeric>
#include <vector>

#include "base/check.h"

namespace temper::objective {
namespace {

bool is_target(const layers::MicroBatch& batch, int64_t t) { return batch.targets[t] >= 0 && batch.weights[t] != 0; }

}  // namespace

double Sft::document_scale(const layers::MicroBatch& batch, int64_t begin, int64_t end) const {
  if (options_.reduction == ObjectiveOptions::Reduction::kToken) return 1;
  int64_t num_targets = 0;
  for (int64_t t = begin; t < end; ++t) num_targets += is_target(batch, t);
  return num_targets > 0 ? 1.0 / static_cast<double>(num_targets) : 0;
}

void Sft::loss_weights(const layers::MicroBatch& batch, std::span<double> w_T) const {
  for (size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s) {
    const int64_t begin = batch.cu_seqlens[s], end = batch.cu_seqlens[s + 1];
    const double scale = document_scale(batch, begin, end);
    for (int64_t t = begin; t < end; ++t) w_T[t] = is_target(batch, t) ? scale * batch.weights[t] : 0;
  }
}

double Sft::count(const layers::MicroBatch& batch) const {
  std::vector<double> w_T(batch.tokens.size());
  loss_weights(batch, w_T);
  return std::accumulate(w_T.begin(), w_T.end(), 0.0);
}

bool Sft::constant_weights(const layers::MicroBatch& batch, double z, std::span<double> dlogp_T) const {
  CHECK(dlogp_T.size() == batch.tokens.size() && z > 0, dlogp_T.size(), batch.tokens.size(), z);
  if (options_.dft) return false;
  loss_weights(batch, dlogp_T);
  for (double& value : dlogp_T) value = -value / z;
  return true;
}

Sums Sft::token_weights(const layers::MicroBatch& batch, std::span<const double> logp_T,
                        std::span<const int32_t> best_T, double z, std::span<double> dlogp_T) const {
  const size_t num_tokens = batch.tokens.size();
  CHECK(logp_T.size() == num_tokens && best_T.size() == num_tokens && dlogp_T.size() == num_tokens, num_tokens);
  CHECK(z > 0, z);
  Sums sums;
  loss_weights(batch, dlogp_T);
  for (size_t t = 0; t < num_tokens; ++t) {
    double weight = dlogp_T[t];
    if (options_.dft) weight *= std::exp(logp_T[t]);
    dlogp_T[t] = -weight / z;
    if (!is_target(batch, static_cast<int64_t>(t))) continue;
    sums.loss -= weight * logp_T[t];
    sums.num_targets += 1;
    sums.num_correct += best_T[t] == batch.targets[t];
  }
  return sums;
}

}  // namespace temper::objective
