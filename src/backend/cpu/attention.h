// Operands of the attention kernels as plain pointers, so that kernels of every instruction level share them.
#pragma once

#include <cstdint>

#include "backend/cpu/attention_tiles.h"

namespace temper::backend {

// q, o, do, dq [T, N, H], c [J, H] and k [C, H] are all f32 or all bf16; k is null without entries.
struct AttentionForward {
  AttentionRanges ranges;
  TileShape shape;
  const void *q, *c, *k;
  const float* sink;
  void* o;
  float* lse;
  int64_t num_heads, head_dim, num_window_rows;
  float scale;
};

struct AttentionBackward {
  AttentionRanges ranges;
  TileShape shape;
  const void *q, *c, *k, *o, *dout;
  const float *sink, *lse;
  void* dq;
  int64_t num_heads, head_dim, num_window_rows;
  float scale;
};

// What one thread of a backward pass leaves behind. Its slice [J + C, H] holds sums in the rows named here, which it
// has zeroed before; the other rows are untouched.
struct AttentionSlice {
  float* rows = nullptr;
  float* dsink = nullptr;  // [N], zeroed by the caller
  int64_t key_begin = 0, key_end = 0, entry_begin = 0, entry_end = 0;
};

}  // namespace temper::backend
