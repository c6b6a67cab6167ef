// Loss on held-out examples.
#pragma once

#include <span>

#include "layers/ctx.h"
#include "model/model.h"

namespace temper::train {

struct HeldoutResult {
  double loss = 0;      // sum w (-log p) / sum w over all positions with a target
  double accuracy = 0;  // share of targets that were the most likely token
  int64_t num_targets = 0;
};

// Runs the model over packed rows; the result does not depend on how examples share rows. Leaves weights, gradients and
// moments alone, and overwrites what the last forward saved. Rows without a target contribute nothing; all zero if none
// has. Ranks deal the rows among themselves; the result is that of all of them.
HeldoutResult evaluate(layers::Ctx& ctx, model::Model& model, std::span<const layers::MicroBatch> batches);

}  // namespace temper::train
