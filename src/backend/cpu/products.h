// One thread's share of a product, as the kernels of every instruction level take it.
#pragma once

#include <cstdint>

namespace temper::backend {

// c[m, n] = sum_k a[m, k] b[k, n], plus c's old value if `accumulate`. Strides count elements. a and b are f32 or both
// bf16 (by which kernel is called) and have unit stride along at least one dim; c has unit stride along n. Sums are
// f32, in an order that depends on k only: however m and n are cut into blocks, the bits are the same.
struct ProductBlock {
  int64_t m, n, k;
  const void* a;
  int64_t a_row_stride, a_col_stride;
  const void* b;
  int64_t b_row_stride, b_col_stride;
  void* c;
  int64_t c_row_stride;
  bool c_is_bf16;
  bool accumulate;
  bool c_is_far = false;  // c is read much later: write it past the caches
};

struct ProductKernels {
  void (*f32)(const ProductBlock&);
  void (*bf16)(const ProductBlock&);
};

// Those of this machine (products_levels.cc).
const ProductKernels& product_kernels();

}  // namespace temper::backend
