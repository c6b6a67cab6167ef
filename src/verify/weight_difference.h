// Whether two directories hold the same numbers, tensor by tensor, however each stores them.
#pragma once

#include <string>
#include <vector>

#include "verify/weights.h"

namespace temper::verify {

struct WeightDifference {
  std::string tensor;  // official name
  double error = 0;    // |a - b| / |b| over the tensor
  double largest = 0;  // largest |a - b| of an element, as part of the largest |b|
  std::string cause;   // what makes one of the other, found on some rows where the error is large; may be empty
};

// Of the tensors of these parameters (whole ones, and parts of experts), those that differ, worst first.
std::vector<WeightDifference> compare_weights(const Weights& a, const Weights& b,
                                              const std::vector<std::string>& parameters);

}  // namespace temper::verify
