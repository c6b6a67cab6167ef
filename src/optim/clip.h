// Gradient norms, clipping factor and the finite check, in one pass over the gradients.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layers/ctx.h"
#include "layers/parameter.h"
#include "optim/whole_model.h"

namespace temper::optim {

// Groups whose norms are reported apart: trouble shows in the router and in mHC before it shows in the loss.
enum class ParameterGroup : uint8_t { kEmbedding, kAttention, kRouter, kExperts, kHyperConnections, kNorms, kHead };
inline constexpr int kNumParameterGroups = 7;
std::string_view group_name(ParameterGroup group);
// By the name in transformers' state dict.
ParameterGroup group_of(std::string_view parameter_name);

struct GradientNorms {
  double global = 0;                                // before clipping
  std::array<double, kNumParameterGroups> group{};  // by ParameterGroup
  std::string first_nonfinite;  // name of the first parameter with a NaN or infinite gradient, or empty
};

// Measures  norm^2 = sum over trainable parameters of ||grad||^2.  Per piece of a tensor in f64 on the device, combined
// on the host in f64 in the order of the whole model's parameters: deterministic, and equal on all ranks. Source:
// post-training 3.5.
class NormMeter {
 public:
  // Of one rank. parameters must outlive the meter.
  explicit NormMeter(std::span<layers::Parameter* const> parameters)
      : NormMeter(WholeModel::of(parameters), parameters) {}
  NormMeter(WholeModel whole, std::span<layers::Parameter* const> parameters)
      : whole_(std::move(whole)), local_(local_rows(whole_, parameters)) {}
  void declare(Book& book);
  // Collective. Waits for the stream.
  GradientNorms measure(layers::Ctx& ctx);

 private:
  WholeModel whole_;
  std::vector<LocalRow> local_;
  View sums_;  // f64; of the pieces of all rows
};

// min(1, max_norm / (norm + 1e-6)); max_norm 0 = no clipping.
double clip_factor(double norm, double max_norm);

}  // namespace temper::optim
