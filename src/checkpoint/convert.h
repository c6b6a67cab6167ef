// Elements between the dtypes of files and of memory, on the host.
#pragma once

#include <cstdint>

#include "checkpoint/safetensors.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace temper::checkpoint {

// The file dtype with the same elements.
FileDType file_dtype(DType dtype);

// Both are floating point (F64, F32, F16, BF16) or both whole numbers (I64, I32).
bool is_convertible(FileDType to, FileDType from);

// to[i] = from[i] for count elements; both may be unaligned, neither may overlap the other. Narrowing rounds to nearest
// even (to and from 16 bits by way of f32); whole numbers must fit, which is the caller's to check.
void convert_elements(void* to, FileDType to_dtype, const void* from, FileDType from_dtype, int64_t count);

// A contiguous tensor as a matrix: all dimensions but the last are rows; a vector or a scalar is one row.
View as_rows(const View& view);

// IEEE binary16, by its bits.
float half_to_float(uint16_t half);
uint16_t float_to_half(float value);

}  // namespace temper::checkpoint
