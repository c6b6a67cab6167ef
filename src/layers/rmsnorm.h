// RMS normalisation with a weight (architecture page 4.1, 12.H):  y = w * x / sqrt(mean(x^2) + eps).
#pragma once

#include "layers/ctx.h"
#include "layers/parameter.h"

namespace temper::layers {

struct RmsNorm {
  Parameter w;  // [D] acc
  double eps = 1e-6;

  void forward(Ctx& ctx, View y_TD, View rstd_T, View x_TD) const {
    ctx.ops.rmsnorm_forward(ctx.stream, y_TD, rstd_T, x_TD, w.value, eps);
  }
  // dx is overwritten, the weight's gradient accumulated unless it is frozen.
  void backward(Ctx& ctx, View dx_TD, View dy_TD, View x_TD, View rstd_T) const {
    ctx.ops.rmsnorm_backward(ctx.stream, dx_TD, w.grad, dy_TD, x_TD, rstd_T, w.value);
  }
};

}  // namespace temper::layers
