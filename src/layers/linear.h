// y = x W^T, no bias: every projection of the model.
//   W [out, in] act;  x [T, in];  y [T, out].      dx = dy W,  dW += dy^T x.
#pragma once

#include "layers/ctx.h"
#include "layers/parameter.h"

namespace temper::layers {

struct Linear {
  Parameter w;

  // y = x W^T + beta y. y may have a column stride (a slice of a wider buffer).
  void forward(Ctx& ctx, View y, View x, double beta = 0) const { ctx.ops.matmul(ctx.stream, y, x, w.value.t(), beta); }
  // dx = dy W + beta dx.
  void backward_input(Ctx& ctx, View dx, View dy, double beta) const {
    ctx.ops.matmul(ctx.stream, dx, dy, w.value, beta);
  }
  // dW, now or later (weight_work). Nothing when the weight is frozen.
  void backward_weight(Ctx& ctx, View dy, View x) const {
    if (!w.grad.defined()) return;
    weight_work(ctx, [this, dy, x](Ctx& at) { at.ops.matmul(at.stream, w.grad, dy.t(), x, w.next_beta()); });
  }
};

}  // namespace temper::layers
