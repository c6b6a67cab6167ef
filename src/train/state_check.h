// Looks for damage in what a step starts from, before any op runs: the data's loss weights, weights, master weights and
// moments. A bit that flipped in memory shows here, where an op would only pass it on.
#pragma once

#include <optional>

#include "model/model.h"
#include "optim/adamw.h"
#include "train/bad_value.h"

namespace temper::train {

struct StateLimits {
  optim::AdamwOptions adamw;
  double max_grad_norm = 0;  // 0: no clipping
};

// The first of these, tensor by tensor (outliers after all others); nullopt if there is none.
//   loss weights that are not finite or below 0
//   values, masters and moments that are not finite
//   values that are not their master rounded (which bit, if it is one), where both are kept
//   a second moment below 0, or above max_grad_norm^2: no clipped gradient is larger
//   a first moment above sqrt(v (1-b1)^2 / ((1-b2) (1 - b1^2/b2))): by Cauchy and Schwarz no sequence of gradients
//   gives one (needs b1^2 < b2) values larger than kOutlier times the root mean square of the rest of their tensor
std::optional<BadValue> check_state(const layers::Ctx& ctx, const model::Model& model, const data::LoaderStep& data,
                                    const StateLimits& limits);

// Trained matrices have outliers of some hundred times their root mean square at most; a flipped high bit of an
// exponent makes 2^64 or 2^128.
inline constexpr double kOutlier = 1000;

}  // namespace temper::train
