// AdamW over the parameters of a model: one fused op per tensor, two groups (decay, no decay), one rate per step.
// The equation stands at `adamw` in backend/ops.def. Source: Loshchilov & Hutter 2019, with PyTorch's placement of eps
// (post-training 3.1).
#pragma once

#include <span>

#include "layers/ctx.h"
#include "layers/parameter.h"
#include "optim/update_meter.h"

namespace temper::optim {

struct AdamwOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;  // of parameters with decay set; the others have none
};

class Adamw {
 public:
  explicit Adamw(AdamwOptions options) : options_(options) {}

  // Updates what this rank owns of every trainable parameter: master, m, v and value from grad_scale * grad. Enqueued
  // on ctx.stream. A tensor that took no part in the step has a zero gradient and is still decayed, as in PyTorch. A
  // meter, made for the same parameters, learns how far they moved.
  void step(layers::Ctx& ctx, std::span<layers::Parameter* const> parameters, double lr, double grad_scale,
            const UpdateMeter* meter = nullptr);

  const AdamwOptions& options() const { return options_; }
  // Updates so far: t of the bias correction. Part of the run state.
  int64_t num_applied() const { return num_applied_; }
  void set_num_applied(int64_t count) { num_applied_ = count; }

 private:
  AdamwOptions options_;
  int64_t num_applied_ = 0;
};

}  // namespace temper::optim
