// Numbers of one stored tensor, read once by chunks: nothing larger than a chunk a thread is in memory.
#pragma once

#include <cstdint>
#include <limits>

#include "verify/weights.h"

namespace temper::verify {

struct Statistics {
  int64_t count = 0, num_zero = 0, num_nan = 0, num_infinite = 0;
  int64_t first_bad = -1;  // row-major index of the first element that is NaN or infinite
  double min = std::numeric_limits<double>::infinity(), max = -min;  // of the finite elements
  double sum_squares = 0;                                            // of the finite elements

  int64_t num_bad() const { return num_nan + num_infinite; }
  double rms() const;
  // Of both; first_bad is this one's if it has one.
  void add(const Statistics& other);
};

// Of rows [begin, end) of a tensor of floating-point numbers; an FP8 or FP4 element is judged with its scale.
Statistics measure_rows(const checkpoint::EncodedTensor& tensor, int64_t begin, int64_t end);

// The scales of an FP8 or FP4 tensor. No quantisation rule writes one that is NaN (E8M0: 255) or not above zero (E8M0:
// 0, which is 2^-127). Blocks of zeros have tiny ones, so that an extreme scale is odd but no fault.
struct ScaleStatistics {
  int64_t count = 0, num_nan = 0, num_zero = 0, num_extreme = 0;  // extreme: outside 2^-100 to 2^60
  int64_t first_bad = -1;   // row-major index of the first that is NaN or not above zero
  double min = 0, max = 0;  // of the others
  int64_t num_bad() const { return num_nan + num_zero; }
};
ScaleStatistics measure_scales(const checkpoint::StoredTensor& scale);

// XXH3 of rows [begin, end) as stored, scales included; begin and end must be multiples of 128 for FP8.
uint64_t hash_rows(const checkpoint::EncodedTensor& tensor, int64_t begin, int64_t end);

}  // namespace temper::verify
