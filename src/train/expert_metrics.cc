#include "train/expert_metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace temper::train {
namespace {

LayerBalance balance_of(const model::MoeStatistics& statistics, int64_t layer) {
  LayerBalance out;
  out.layer = layer, out.entropy = statistics.entropy;
  const std::vector<int32_t>& load_E = statistics.load_E;
  const auto num_experts = static_cast<double>(load_E.size());
  const double mean = std::accumulate(load_E.begin(), load_E.end(), 0.0) / num_experts;
  out.num_dead = std::count(load_E.begin(), load_E.end(), 0);
  if (mean == 0) return out;
  out.overload = *std::max_element(load_E.begin(), load_E.end()) / mean;
  double squares = 0;
  for (const int32_t load : load_E) squares += (load - mean) * (load - mean);
  out.variation = std::sqrt(squares / num_experts) / mean;
  return out;
}

}  // namespace

ExpertMetrics expert_metrics(std::span<const model::MoeStatistics> moe_L) {
  ExpertMetrics out;
  int64_t num_elements = 0;
  for (size_t l = 0; l < moe_L.size(); ++l) {
    const model::MoeStatistics& statistics = moe_L[l];
    out.num_gate_high += statistics.num_gate_high;
    out.num_linear_high += statistics.num_linear_high;
    out.num_linear_low += statistics.num_linear_low;
    num_elements += 2 * statistics.num_elements;
    if (statistics.load_E.empty()) continue;
    const LayerBalance& layer = out.layers.emplace_back(balance_of(statistics, static_cast<int64_t>(l)));
    out.overload = std::max(out.overload, layer.overload);
    out.bias_range = std::max(out.bias_range, statistics.bias_range);
    out.variation += layer.variation, out.entropy += layer.entropy, out.num_dead += layer.num_dead;
  }
  const auto num_layers = static_cast<double>(std::max<size_t>(out.layers.size(), 1));
  out.variation /= num_layers, out.entropy /= num_layers;
  const auto num_cut = static_cast<double>(out.num_gate_high + out.num_linear_high + out.num_linear_low);
  if (num_elements > 0) out.clamped_share = num_cut / static_cast<double>(num_elements);
  return out;
}

}  // namespace temper::train
