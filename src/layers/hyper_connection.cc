#include "layers/hyper_connection.h"

namespace temper::layers {

HyperConnection::Saved HyperConnection::Saved::first(int64_t T) const {
  Saved out{{}, {}, mix_TY.first(T), rstd_T.first(T)};
  if (post_TM.defined()) out.post_TM = post_TM.first(T), out.comb_TMM = comb_TMM.first(T);
  return out;
}

HyperConnection::HyperConnection(const std::string& prefix, HyperDims dims, bool head, Dtypes dtypes)
    : dims_(dims), head_(head), dtypes_(dtypes) {
  const int64_t Y = head ? dims.M : (2 + dims.M) * dims.M;
  const std::string name = prefix + (head ? "hc_" : "");
  fn_ = fine_parameter(name + "fn", {Y, dims.M * dims.D}, dtypes, Init::kNormal);
  fn_.decay = true;
  base_ = fine_parameter(name + "base", {Y}, dtypes, Init::kZeros);
  scale_ = fine_parameter(name + "scale", {head ? 1 : 3}, dtypes, Init::kOnes);
}

void HyperConnection::collect(ParameterList& list) { list.insert(list.end(), {&fn_, &base_, &scale_}); }

void HyperConnection::declare_saved(Book& book, Saved& saved, int64_t max_tokens) const {
  const int64_t T = max_tokens, M = dims_.M;
  const auto declare = [&](View& view, const char* what, Shape shape) {
    book.declare(&view, TensorKind::kSaved, fn_.name + ":" + what, dtypes_.acc, shape);
  };
  declare(saved.mix_TY, "mix", {T, fn_.shape[0]});
  declare(saved.rstd_T, "rstd", {T});
  if (head_) return;
  declare(saved.post_TM, "post", {T, M});
  declare(saved.comb_TMM, "comb", {T, M, M});
}

void HyperConnection::declare_scratch(Book& book, int64_t max_tokens) {
  if (head_) return;
  const int64_t T = max_tokens, M = dims_.M;
  const auto declare = [&](View& view, const char* what, Shape shape) {
    book.declare(&view, TensorKind::kScratch, fn_.name + ":" + what, dtypes_.acc, shape);
  };
  declare(scratch_.dpost_TM, "dpost", {T, M});
  declare(scratch_.dcomb_TMM, "dcomb", {T, M, M});
}

void HyperConnection::pre(Ctx& ctx, View u_TD, View x_TMD, const Saved& saved) const {
  ctx.ops.hc_pre_forward(ctx.stream, u_TD, saved.post_TM, saved.comb_TMM, saved.mix_TY, saved.rstd_T, x_TMD, fn_.value,
                         base_.value, scale_.value, dims_.sinkhorn_iters, dims_.rms_eps, dims_.hc_eps);
}

void HyperConnection::post(Ctx& ctx, View xo_TMD, View x_TMD, View y_TD, const Saved& saved) const {
  ctx.ops.hc_post_forward(ctx.stream, xo_TMD, x_TMD, y_TD, saved.post_TM, saved.comb_TMM);
}

void HyperConnection::backward_post(Ctx& ctx, View dy_TD, View dx_TMD, View x_TMD, View y_TD,
                                    const Saved& saved) const {
  const int64_t T = x_TMD.dim(0);
  ctx.ops.hc_post_backward(ctx.stream, dy_TD, dx_TMD, scratch_.dpost_TM.first(T), scratch_.dcomb_TMM.first(T), dx_TMD,
                           x_TMD, y_TD, saved.post_TM, saved.comb_TMM);
}

void HyperConnection::backward_pre(Ctx& ctx, View dx_TMD, View du_TD, View x_TMD, const Saved& saved) const {
  const int64_t T = x_TMD.dim(0);
  View dpost_TM, dcomb_TMM;
  if (!head_) dpost_TM = scratch_.dpost_TM.first(T), dcomb_TMM = scratch_.dcomb_TMM.first(T);
  ctx.ops.hc_pre_backward(ctx.stream, dx_TMD, fn_.grad, base_.grad, scale_.grad, du_TD, dpost_TM, dcomb_TMM, x_TMD,
                          saved.mix_TY, saved.rstd_T, fn_.value, base_.value, scale_.value, dims_.sinkhorn_iters,
                          dims_.hc_eps);
}

}  // namespace temper::layers
