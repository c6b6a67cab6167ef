// Cutting a model's layers into the parts of a pipeline (schedule.h), evenly by cost.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/model_options.h"

namespace temper::parallel {

// In any unit.
struct LayerCosts {
  std::vector<double> layer_L;  // of the main layers
  double first = 0, last = 0;   // of what the first and the last part have besides
};

// Forward FLOPs per token in documents of that many tokens (post-training 4.9): products and attention, the routed
// experts that a token meets, the indexer where entries are chosen. The embedding costs nothing; the last part has the
// collapse, the head and, with mtp, the prediction block with a head of its own pass. Backward is twice this for every
// layer, so that these numbers cut it evenly too.
LayerCosts forward_flops(const model::Config& config, int64_t document_tokens, bool mtp);

// Forward FLOPs of a document of so many tokens in the whole model, alike on all ranks: what data is dealt by.
double document_flops(const model::Config& config, int64_t num_tokens);

using model::LayerRange;

// The layers of num_stages * num_chunks parts, by part. Every part has at least one layer; the costliest part, which
// sets the pace, is as cheap as can be, and among such cuts the sum of the parts' squared costs is least; where that is
// equal, earlier parts are shorter, since earlier stages keep more micro-batches alive. Throws kInvalidArgument where
// there are more parts than layers.
std::vector<LayerRange> split_layers(const LayerCosts& costs, int64_t num_stages, int64_t num_chunks);

}  // namespace temper::parallel
