// A tiny model with every kind of layer and documents to train it on.
#pragma once

#include <vector>

#include "layers/token_layout.h"
#include "model/config.h"
#include "train/session.h"

namespace temper::train::testing {

// Sliding, CSA and HCA layers, hash- and score-routed: the fixture mixed_rate16.
model::Config tiny_config();

using Document = std::vector<int32_t>;

// Documents of the given lengths, tokens drawn from the vocabulary by seed.
std::vector<Document> random_documents(const std::vector<int64_t>& lengths, int64_t vocab_size, uint64_t seed);

// One row of documents: every token but the last of a document has a target; every third position has weight 0.5.
layers::MicroBatch pack_row(const std::vector<Document>& documents);

// The memory of a tensor as doubles (f32 or f64).
std::vector<double> to_host(layers::Ctx& ctx, View view);

}  // namespace temper::train::testing
