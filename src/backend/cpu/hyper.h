// Operands of the hyper-connection kernels as plain pointers, so that kernels of every instruction level share them.
#pragma once

#include <cstdint>

namespace temper::backend {

// hc_coefficients_forward. post and comb are null for the head.
struct HyperCoefficients {
  float *pre, *post, *comb, *mix, *rstd;
  const void* x;           // [T, width], f32 or bf16
  const float* fn_panels;  // fn packed as [width, outputs]
  const float *base, *scale;
  int64_t width, outputs, sinkhorn_iters;
  float rms_eps, hc_eps;
};

// hc_coefficients_backward. dpost and dcomb are null for the head.
struct HyperGradients {
  float* dx;  // [T, width], accumulated
  const float *dpre, *dpost, *dcomb;
  const void* x;  // [T, width], f32 or bf16
  const float *mix, *rstd;
  const float* fn_panels;  // fn packed as [outputs, width]
  const float *base, *scale;
  int64_t width, outputs, sinkhorn_iters;
  float hc_eps;
};

}  // namespace temper::backend
