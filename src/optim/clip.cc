#include "optim/clip.h"

#include <algorithm>
#include <cmath>

namespace temper::optim {
namespace {

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace

std::string_view group_name(ParameterGroup group) {
  constexpr std::string_view kNames[] = {"embedding", "attention", "router", "experts", "mhc", "norms", "head"};
  return kNames[static_cast<int>(group)];
}

ParameterGroup group_of(std::string_view name) {
  if (contains(name, "embed_tokens")) return ParameterGroup::kEmbedding;
  if (name.starts_with("lm_head")) return ParameterGroup::kHead;
  if (contains(name, "attn_hc.") || contains(name, "ffn_hc.") || contains(name, "hc_head.")) {
    return ParameterGroup::kHyperConnections;
  }
  if (contains(name, "norm.")) return ParameterGroup::kNorms;
  if (contains(name, "mlp.gate.")) return ParameterGroup::kRouter;
  if (contains(name, "mlp.")) return ParameterGroup::kExperts;
  return ParameterGroup::kAttention;
}

NormMeter::NormMeter(std::span<layers::Parameter* const> parameters) {
  for (layers::Parameter* p : parameters)
    if (p->trainable) trainable_.push_back(p);
  host_P_.resize(trainable_.size());
}

void NormMeter::declare(Book& book) {
  book.declare(&sum_P_, TensorKind::kScratch, "gradient_norms.sum", DType::kF64,
               {static_cast<int64_t>(trainable_.size())});
}

GradientNorms NormMeter::measure(layers::Ctx& ctx) {
  for (size_t i = 0; i < trainable_.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    ctx.ops.sum_squares(ctx.stream, sum_P_.rows(index, index + 1), trainable_[i]->grad);
  }
  ctx.device.copy_to_host(ctx.stream, host_P_.data(), sum_P_);
  GradientNorms norms;
  double total = 0;
  for (size_t i = 0; i < trainable_.size(); ++i) {
    if (!std::isfinite(host_P_[i]) && norms.first_nonfinite.empty()) norms.first_nonfinite = trainable_[i]->name;
    total += host_P_[i];
    norms.group[static_cast<int>(group_of(trainable_[i]->name))] += host_P_[i];
  }
  norms.global = std::sqrt(total);
  for (double& value : norms.group) value = std::sqrt(value);
  return norms;
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace temper::optim
