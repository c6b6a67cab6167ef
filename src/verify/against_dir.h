// Do two directories compute the same? Both run on the same tokens, a layer of the one and the same layer of the other
// at a time, each on its own streams; and each layer of the first also on the second's streams, so that the layer is
// named that makes the difference, and not those that inherit it. Weights are compared tensor by tensor.
#pragma once

#include "verify/logits.h"
#include "verify/streamed_model.h"
#include "verify/structure.h"

namespace temper::verify {

struct AgainstOptions {
  layers::Precision precision = layers::Precision::kFp32;
  double max_error = 0;  // of a token's streams after a layer on equal streams; 0: kMaxAgainstError
  LogitGates logits;
};
inline constexpr double kMaxAgainstError = 5e-2;  // one of them may have been quantised

// Throws kInvalidArgument where the models have different parameters.
void refuse_other_shapes(const Weights& ours, const Weights& theirs);

// Bytes beyond one StreamedModel's.
int64_t against_extra_bytes(const Weights& theirs, layers::Precision precision, int64_t num_tokens);

nlohmann::json check_against_dir(const Weights& ours, const Weights& theirs, const layers::MicroBatch& tokens,
                                 const backend::Backend& fast, const AgainstOptions& options, Findings& findings,
                                 const Print& print);

}  // namespace temper::verify
