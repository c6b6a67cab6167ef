// What holds in every forward pass of a V4 layer whatever its weights are, measured on what a layer has saved.
#pragma once

#include "model/block.h"
#include "model/config.h"
#include "verify/findings.h"

namespace temper::verify {

struct Invariants {
  // comb after Sinkhorn, both sites (architecture page 3.1): largest |sum - 1| of a column, which the last step makes
  // exact, and of a row, which is as good as the iterations; smallest entry.
  double comb_column = 0, comb_row = 0, comb_min = 0;
  // Router (6.1): largest |sum of a token's weights / routed_scaling_factor - 1|; tokens with an expert twice or none.
  double router_weight = 0;
  int64_t num_bad_choices = 0;
  // Attention (5.5): smallest log-sum-exp minus the head's sink, which is one of its terms.
  double sink_margin = 0;
};
// sink_N: the layer's sinks.
Invariants measure_invariants(const model::Block& block, const View& sink_N, const model::Config& config, int64_t layer,
                              int64_t num_tokens);

void report_invariants(const Invariants& invariants, int64_t layer, Findings& findings);

}  // namespace temper::verify
