#include "optim/clip.h"

#include <algorithm>
#include <cmath>
#include <numeric>

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

void NormMeter::declare(Book& book) {
  book.declare(&sums_, TensorKind::kScratch, "gradient_norms.sums", DType::kF64, {whole_.num_sums()});
}

GradientNorms NormMeter::measure(layers::Ctx& ctx) {
  if (whole_.world) ctx.ops.fill(ctx.stream, sums_, 0);
  for (const LocalRow& local : local_) {
    if (!local.is_counted || local.parameter->num_owned() == 0) continue;
    const View grad = local.parameter->owned_grad().reshape({local.parameter->num_owned()});
    for_each_stretch(whole_, local, [&](const Stretch& s) {
      ctx.ops.sum_squares(ctx.stream, sums_.rows(s.sum, s.sum + 1), grad.rows(s.begin, s.end));
    });
  }
  if (whole_.world) whole_.world->all_reduce(ctx.stream, sums_, comm::Reduce::kSum, {"gradient norms"});
  std::vector<double> sums(static_cast<size_t>(whole_.num_sums()));
  ctx.device.copy_to_host(ctx.stream, sums.data(), sums_);
  GradientNorms norms;
  double total = 0;
  for (const WholeModel::Row& row : whole_.rows) {
    const auto first = sums.begin() + row.first_sum;
    const double sum = std::accumulate(first, first + row.num_sums, 0.0);
    if (!std::isfinite(sum) && norms.first_nonfinite.empty()) norms.first_nonfinite = row.name;
    total += sum;
    norms.group[static_cast<int>(group_of(row.name))] += sum;
  }
  norms.global = std::sqrt(total);
  for (double& value : norms.group) value = std::sqrt(value);
  return norms;
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace temper::optim
