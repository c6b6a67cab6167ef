// Operands of the indexer's kernels as plain pointers, so that kernels of every instruction level share them.
#pragma once

#include <cstdint>

#include "backend/cpu/attention_tiles.h"

namespace temper::backend {

void register_indexer_loss(OpTable& ops);  // indexer_loss.cc

// index_topk. q [T, I, P], k [C, P] are both f32 or both bf16; w [T, I].
struct IndexOperands {
  const void *q, *k;
  const float* w;
  const int32_t *entry_begin, *entry_count;
  int32_t* selected;  // [T, max_selected]
  int64_t num_heads, head_dim, max_selected;
  float scale;
};

// indexer_loss. q, dq [T, I, P], k [C, P], query [T, N, H], key [C, H] and dw [T, I] are all f32 or all bf16; w [T, I],
// lse [T, N]. dk is apart: each thread adds to a slice of its own.
struct IndexerLoss {
  AttentionRanges ranges;
  const void *q, *k, *query, *key;
  const float *w, *lse;
  void *dq, *dw;
  float* divergence;  // [T]: KL(pi || rho)
  int64_t num_index_heads, index_dim, num_heads, head_dim;
  float attention_scale, index_scale, coefficient;
};

}  // namespace temper::backend
