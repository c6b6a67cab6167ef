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

void NormMeter::declare(Book& book) {
  book.declare(&sum_PS_, TensorKind::kScratch, "gradient_norms.sum", DType::kF64,
               {static_cast<int64_t>(whole_.rows.size()), whole_.num_pieces});
}

void NormMeter::add_squares(layers::Ctx& ctx, const LocalRow& local) {
  const layers::Parameter& p = *local.parameter;
  const int64_t num_owned = p.num_owned(), S = whole_.num_pieces;
  const View sum_S = sum_PS_.slice(0, local.row, local.row + 1).reshape({S});
  const View grad = p.owned_grad().reshape({num_owned});
  if (S == 1) {
    if (num_owned > 0) ctx.ops.sum_squares(ctx.stream, sum_S, grad);
    return;
  }
  // Pieces of the whole tensor, as those that S ranks would share: this rank has a range of its elements.
  const int64_t piece = layers::Share{0, S}.piece(whole_.rows[local.row].num_elements);
  for (int64_t at = 0; at < num_owned;) {
    const int64_t element = p.whole_index(p.owned_begin() + at), index = element / piece;
    const int64_t end = std::min(num_owned, at + (index + 1) * piece - element);
    ctx.ops.sum_squares(ctx.stream, sum_S.rows(index, index + 1), grad.rows(at, end));
    at = end;
  }
}

GradientNorms NormMeter::measure(layers::Ctx& ctx) {
  if (whole_.world || whole_.num_pieces > 1) ctx.ops.fill(ctx.stream, sum_PS_, 0);
  for (const LocalRow& local : local_)
    if (local.is_counted) add_squares(ctx, local);
  if (whole_.world)
    whole_.world->all_reduce(ctx.stream, sum_PS_.reshape({sum_PS_.size()}), comm::Reduce::kSum, {"gradient norms"});
  std::vector<double> sum_PS(static_cast<size_t>(sum_PS_.size()));
  ctx.device.copy_to_host(ctx.stream, sum_PS.data(), sum_PS_);
  GradientNorms norms;
  double total = 0;
  for (size_t row = 0; row < whole_.rows.size(); ++row) {
    const std::string& name = whole_.rows[row].name;
    double sum = 0;
    for (int64_t s = 0; s < whole_.num_pieces; ++s) sum += sum_PS[row * whole_.num_pieces + s];
    if (!std::isfinite(sum) && norms.first_nonfinite.empty()) norms.first_nonfinite = name;
    total += sum;
    norms.group[static_cast<int>(group_of(name))] += sum;
  }
  norms.global = std::sqrt(total);
  for (double& value : norms.group) value = std::sqrt(value);
  return norms;
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace temper::optim
