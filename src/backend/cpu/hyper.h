// Operands of the hyper-connection kernels as plain pointers, so that kernels of every instruction level share them.
#pragma once

#include <cstdint>

namespace temper::backend {

// Tokens that a kernel works on together, and so the unit in which threads share them: a multiple of all vector
// lengths.
inline constexpr int64_t kHyperBlock = 16;
// Sums over the tokens of a block that backward keeps: of each output's logit gradient, then of each scale.
inline constexpr int64_t kHyperSums = 32;

// What forward and backward of hc_pre read alike. outputs is 24, or 4 for the head.
struct HyperSite {
  const void* x;  // [tokens, 4 * dim], f32 or bf16
  const float *fn, *base, *scale;
  int64_t tokens, dim, outputs, sinkhorn_iters;
  float hc_eps;
};

// hc_pre_forward. post and comb are null for the head.
struct HyperForward {
  HyperSite site;
  void* u;  // [tokens, dim], of x's type
  float *post, *comb, *mix, *rstd;
  float rms_eps;
};

// hc_pre_backward. dpost and dcomb are null for the head, dfn where the parameters are frozen.
struct HyperBackward {
  HyperSite site;
  float *dx, *dfn;
  const float *du, *dpost, *dcomb, *mix, *rstd;
  float* fn_panels;  // fn in the order in which dx needs it
  float* weight;     // [block, output, kHyperBlock]: rstd * dmix, the left operand of both products
  float* sums;       // [block, kHyperSums]
};

}  // namespace temper::backend
