// The one who has weights where a model needs them, and adds up its gradients over ranks.
#pragma once

#include <cstdint>

#include "layers/ctx.h"

namespace temper::model {

// Gradients of a unit, by who forms them: products alone (Parameter::grad_by_products), which a schedule may put off;
// all others, always at once.
enum class GradientKind : uint8_t { kOfProducts, kOthers };

// Brings the weights of a layer before it runs and takes its gradients away after it. Units: a main layer by its
// number, num_hidden_layers for the prediction block, kEnds for everything else, whose weights are always there.
class WeightKeeper {
 public:
  static constexpr int64_t kEnds = -1;
  virtual ~WeightKeeper() = default;
  // A step of this rank's micro-batches begins, and has had all of them: every gradient is there after it.
  virtual void begin_step(int64_t num_micro_batches) = 0;
  virtual void end_step(layers::Ctx& ctx) = 0;
  // The unit's values are wanted soon: begins to fetch them where there is room. Of several units, in the order of use.
  virtual void gather(layers::Ctx& ctx, int64_t unit) = 0;
  // They are there from here on, for what is enqueued, until release(): then another unit's may take their place.
  virtual void get(layers::Ctx& ctx, int64_t unit) = 0;
  virtual void release(int64_t unit) = 0;
  // A micro-batch adds to these gradients of the unit from now on, and no more: their sum over ranks may begin. The
  // ends have no begin.
  virtual void begin_backward(layers::Ctx& ctx, int64_t unit, GradientKind kind) = 0;
  virtual void end_backward(layers::Ctx& ctx, int64_t unit, GradientKind kind) = 0;
  // This rank has written what it owns of the values.
  virtual void values_changed(layers::Ctx& ctx) = 0;
};

}  // namespace temper::model
