// What a model is written as: every weight with its name, number format and origin, before a byte is written.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "checkpoint/model_dir.h"
#include "checkpoint/weight_source.h"

namespace temper::checkpoint {

// A weight to be written, with its scale where it is quantised.
struct PlannedWeight {
  TensorInfo weight;
  std::optional<TensorInfo> scale;
  Encoding encoding = Encoding::kPlain;
  // The values: a parameter's weight of record, or a part of it. `from` is a window without memory: its offset counts
  // from the parameter's first element. Undefined: those of source.
  const layers::Parameter* parameter = nullptr;
  View from;
  // The same part in the source directory. Where it is stored in the same format it is copied byte for byte, if it
  // decodes to the values; nullptr where there is nothing to gain or to copy.
  const EncodedTensor* source = nullptr;

  int64_t num_bytes() const { return weight.num_bytes() + (scale ? scale->num_bytes() : 0); }
  bool is_stored_alike() const;  // source has the same dtypes and shapes
};

// parameters: of a whole model (WholeWeights), which must outlive the plan. In their order; then what is carried over
// from source (nullptr: there is none): its mtp.* tensors, where the model has no MTP block.
std::vector<PlannedWeight> plan_save(std::span<layers::Parameter* const> parameters, const WeightSource* source,
                                     SaveDType wanted, std::optional<NameStyle> style);

}  // namespace temper::checkpoint
