// How far an update moved the weights, measured where AdamW writes them: no second pass over memory.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "layers/ctx.h"
#include "layers/parameter.h"
#include "optim/clip.h"

namespace temper::optim {

// Of the applied update: ||w' - w||, and ||w'|| of the weights after it; w the fp32 masters.
struct UpdateNorm {
  double update = 0, weight = 0;
  int64_t num_elements = 0;
  // ||w' - w|| / ||w'||; 0 where all weights are 0.
  double ratio() const { return weight > 0 ? update / weight : 0; }
  double update_rms() const;
};

struct UpdateNorms {
  UpdateNorm global;
  std::array<UpdateNorm, kNumParameterGroups> group{};  // by ParameterGroup; all 0 where a group has nothing to train
};

// Source: post-training 5.1 (update_rms, params-norm). Summed per piece of a tensor on the device, combined on the host
// in f64 in the order of the whole model's parameters: deterministic.
class UpdateMeter {
 public:
  // Of one rank. parameters must outlive the meter.
  explicit UpdateMeter(std::span<layers::Parameter* const> parameters)
      : UpdateMeter(WholeModel::of(parameters), parameters) {}
  UpdateMeter(WholeModel whole, std::span<layers::Parameter* const> parameters)
      : whole_(std::move(whole)), local_(local_rows(whole_, parameters)) {}
  void declare(Book& book, DType acc);
  void begin(layers::Ctx& ctx) const;
  // The row of this rank's i-th trainable parameter, whose stretches the op adamw updates one by one; and where it puts
  // the squares of each; undefined: nowhere.
  const WholeModel& whole() const { return whole_; }
  const LocalRow& row_of(const layers::Parameter& parameter, size_t i) const;
  View squares_2(const LocalRow& row, const Stretch& stretch) const;
  // Of the last Adamw::step that was given this meter. Collective. Waits for the stream.
  UpdateNorms read(layers::Ctx& ctx) const;

 private:
  WholeModel whole_;
  std::vector<LocalRow> local_;
  View squares_N2_;  // acc; of the pieces of all rows
};

}  // namespace temper::optim
