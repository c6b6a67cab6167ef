// Operands of the indexer's kernels as plain pointers, so that kernels of every instruction level share them.
#pragma once

#include <cstdint>

namespace temper::backend {

// index_topk. q [T, I, P], k [C, P] are both f32 or both bf16; w [T, I].
struct IndexOperands {
  const void *q, *k;
  const float* w;
  const int32_t *entry_begin, *entry_count;
  int32_t* selected;  // [T, max_selected]
  int64_t num_heads, head_dim, max_selected;
  float scale;
};

}  // namespace temper::backend
