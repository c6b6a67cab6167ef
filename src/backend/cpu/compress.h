// Compressed entries: operands of their kernels as plain pointers, and registration.
#pragma once

#include <cstdint>

#include "backend/ops.h"

namespace temper::backend {

void register_compress(OpTable& ops);  // compress.cc: compress_forward, compress_backward, index_topk

// compress_forward and compress_backward. z, g, dz, dg [T, Z], ape, dape [rate, Z], v, dv [C, H]; Z = 2H when windows
// overlap (then prev_row counts), else H.
struct CompressOperands {
  const float *z, *g, *ape;
  const int32_t *row, *prev_row;
  int64_t rate, head_dim, width;
  void* v;          // forward: f32 or bf16
  const float* dv;  // backward
  void *dz, *dg;    // backward: f32 or bf16
};

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
