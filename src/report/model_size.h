// How many parameters a model has, and where.
#pragma once

#include <array>
#include <cstdint>

#include "model/config.h"
#include "optim/clip.h"

namespace temper::report {

// Tables of expert ids and correction biases are counted neither by the makers nor here.
struct ModelSize {
  std::array<int64_t, optim::kNumParameterGroups> by_group{};  // without the prediction block, as `total` and `active`
  int64_t total = 0;
  int64_t active = 0;  // for one token: the experts that it chooses, without the input embedding
  int64_t prediction_block = 0;
};

ModelSize measure(const model::Config& config);

}  // namespace temper::report
