// Does the fast path compute what the equations say? Every layer of a model runs twice on the same streams: on the fast
// backend, and in float64 on the scalar reference with the same weights; and every op of the fast run is repeated in
// float64 on its own operands (checked.h). The next layer begins with the reference's streams, so that a fault stays in
// its layer.
//
// Gates, by layer: the streams of the worst token, every op, NaN and infinities, and what must hold whatever the
// weights are: comb is doubly stochastic, the router's weights sum to routed_scaling_factor, experts differ, no sink
// exceeds its softmax.
//
// Where scores of experts or index entries are closer than rounding, either choice is right: the reference takes the
// fast path's, and such rows are counted.
#pragma once

#include "verify/findings.h"
#include "verify/streamed_model.h"
#include "verify/structure.h"

namespace temper::verify {

struct SelfOptions {
  layers::Precision precision = layers::Precision::kFp32;  // fp32 or bf16
  double max_error = 0;  // of a token's streams after a layer: |fast - reference| / |reference|; 0: default_max_error
  const backend::Backend* fast = nullptr;  // the backend under test; nullptr: the CPU's
};
double default_max_error(layers::Precision precision);

// Bytes beyond StreamedModel's: the reference's activations of a layer, and what one op needs twice.
int64_t self_extra_bytes(const Weights& weights, int64_t num_tokens);

nlohmann::json check_self(const Weights& weights, const layers::MicroBatch& tokens, const SelfOptions& options,
                          Findings& findings, const Print& print);

}  // namespace temper::verify
