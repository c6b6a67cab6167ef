// Operands of the router kernels as plain pointers, so that kernels of every instruction level share them.
#pragma once

#include <cstdint>

namespace temper::backend {

// router_weights_backward. dweight, weight, index [T, chosen], z, dz [T, experts]; dz f32 or bf16.
struct RouterBackward {
  void* dz;
  const float *dweight, *weight, *z;
  const int32_t* index;
  int64_t experts, chosen;
  float scaling;
  const float* frequency;  // [experts]: F of the balance loss; null: without it
  float balance;           // its weight, over the number of tokens
  float* balance_loss;     // [T]: sum_e F_e shat_te
};

}  // namespace temper::backend
