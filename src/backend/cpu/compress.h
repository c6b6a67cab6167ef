// Operands of the pooling kernels as plain pointers, so that kernels of every instruction level share them.
#pragma once

#include <cstdint>

namespace temper::backend {

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

}  // namespace temper::backend
