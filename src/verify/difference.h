// How far a tensor is from what it should be. Host memory, any floating-point dtypes and strides.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/view.h"

namespace temper::verify {

// Of two tensors of one shape; rows are their first dim (tokens). Elements that are not finite on either side count as
// infinitely far apart, unless they are not finite on both.
struct Difference {
  double error = 0;        // |got - want| / |want| over all elements
  double cosine = 1;       // between them
  double worst_error = 0;  // the largest |got - want| / |want| of a row
  int64_t worst_row = -1;
  int64_t num_non_finite = 0;  // elements of got that are not finite
};
Difference compare_rows(const View& got, const View& want);

// The largest |got - want| / (|want| + rms(want)) over the elements of the first num_rows rows, and where it is. Gauges
// one op: its rounding is relative to the element or, where terms cancel, to the size of the tensor.
struct ElementError {
  double error = 0;
  int64_t row = -1;
};
ElementError worst_element(const View& got, const View& want, int64_t num_rows);

// The elements in row-major order.
std::vector<double> to_doubles(const View& view);

}  // namespace temper::verify
