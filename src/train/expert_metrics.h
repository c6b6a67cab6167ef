// How evenly a step's tokens went to the experts: numbers from the counts that the model kept.
#pragma once

#include <span>
#include <vector>

#include "model/model.h"

namespace temper::train {

// Of one layer that is routed by score. mean = load summed over experts / experts.
struct LayerBalance {
  int64_t layer = 0;     // the prediction block is the one after the last layer
  double overload = 0;   // largest load / mean: 1 is even, MaxVio + 1
  double variation = 0;  // standard deviation of the loads / mean
  int64_t num_dead = 0;  // experts that no token chose in the step
  double entropy = 0;    // of the router's scores, mean over tokens, nats
};

struct ExpertMetrics {
  std::vector<LayerBalance> layers;  // none where the step had no such statistics
  // Over those layers: the largest overload and range of biases, the sum of dead experts, the means of the other two.
  double overload = 0, bias_range = 0, variation = 0, entropy = 0;
  int64_t num_dead = 0;
  // Over all layers: elements that the clamp cut, and their share of those that passed it, both branches counted.
  int64_t num_gate_high = 0, num_linear_high = 0, num_linear_low = 0;
  double clamped_share = 0;
};

ExpertMetrics expert_metrics(std::span<const model::MoeStatistics> moe_L);

}  // namespace temper::train
