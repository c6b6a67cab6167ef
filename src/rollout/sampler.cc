#include "rollout/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace temper::rollout {

int32_t sample_token(std::span<const double> logits_V, const SamplingOptions& options, const Philox& random,
                     uint64_t step, uint64_t sequence) {
  const auto best = std::max_element(logits_V.begin(), logits_V.end());
  if (options.temperature <= 0) return static_cast<int32_t>(best - logits_V.begin());

  std::vector<double> weights(logits_V.size());
  for (size_t v = 0; v < weights.size(); ++v) weights[v] = std::exp((logits_V[v] - *best) / options.temperature);
  std::vector<int32_t> order(logits_V.size());
  std::iota(order.begin(), order.end(), 0);
  size_t count = order.size();
  double kept = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (options.top_p < 1) {
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return weights[a] > weights[b]; });
    const double wanted = options.top_p * kept;
    kept = 0;
    for (count = 0; count < order.size() && (count == 0 || kept < wanted); ++count) kept += weights[order[count]];
  }
  double left = random.uniform(step, sequence) * kept;
  for (size_t i = 0; i + 1 < count; ++i) {
    left -= weights[order[i]];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace temper::rollout
