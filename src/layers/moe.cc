#include "layers/moe.h"

namespace temper::layers {

Moe::Moe(const std::string& prefix, MoeDims dims, Dtypes dtypes)
    : dims_(dims),
      dtypes_(dtypes),
      router_{matrix(prefix + "gate.weight", {dims.E, dims.D}, dtypes)},
      gate_up_(matrix(prefix + "experts.gate_up_proj", {dims.E, 2 * dims.F, dims.D}, dtypes)),
      down_(matrix(prefix + "experts.down_proj", {dims.E, dims.D, dims.F}, dtypes)),
      shared_gate_{matrix(prefix + "shared_experts.gate_proj.weight", {dims.F, dims.D}, dtypes)},
      shared_up_{matrix(prefix + "shared_experts.up_proj.weight", {dims.F, dims.D}, dtypes)},
      shared_down_{matrix(prefix + "shared_experts.down_proj.weight", {dims.D, dims.F}, dtypes)} {
  if (dims.hash) {
    tid2eid_ = fine_parameter(prefix + "gate.tid2eid", {dims.V, dims.K}, dtypes, Init::kHashTable);
    tid2eid_.dtype = DType::kI64;
    tid2eid_.trainable = false;
  } else {
    bias_ = fine_parameter(prefix + "gate.e_score_correction_bias", {dims.E}, dtypes, Init::kZeros);
    bias_.trainable = false;
  }
}

void Moe::collect(ParameterList& list) {
  list.insert(list.end(), {&router_.w, dims_.hash ? &tid2eid_ : &bias_, &gate_up_, &down_, &shared_gate_.w,
                           &shared_up_.w, &shared_down_.w});
}

int64_t Moe::num_rows(int64_t T) const {
  const int64_t most = T * dims_.K + dims_.E * (kRowAlignment - 1);
  return (most + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}

void Moe::declare_saved(Book& book, Saved& saved, int64_t max_tokens) const {
  const int64_t T = max_tokens, R = num_rows(max_tokens), K = dims_.K, F = dims_.F;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kSaved, router_.w.name + ":" + what, dtype, shape);
  };
  declare(saved.z_TE, "z", dtypes_.acc, {T, dims_.E});
  declare(saved.weight_TK, "weight", dtypes_.acc, {T, K});
  declare(saved.weight_R1, "row_weight", dtypes_.acc, {R, 1});
  declare(saved.offset_E1, "offset", DType::kI32, {dims_.E + 1});
  declare(saved.row_token_R, "row_token", DType::kI32, {R});
  declare(saved.row_slot_R, "row_slot", DType::kI32, {R});
  declare(saved.slot_row_TK, "slot_row", DType::kI32, {T, K});
  declare(saved.gu_RG, "gate_up", dtypes_.act, {R, 2 * F});
  declare(saved.shared_gu_TG, "shared_gate_up", dtypes_.act, {T, 2 * F});
}

void Moe::declare_scratch(Book& book, int64_t max_tokens, bool train) {
  const ScratchScope scope(book);
  const int64_t T = max_tokens, R = num_rows(max_tokens), D = dims_.D, F = dims_.F;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, router_.w.name + ":" + what, dtype, shape);
  };
  declare(scratch_.x_RD, "x", dtypes_.act, {R, D});
  declare(scratch_.y_RD, "y", dtypes_.act, {R, D});
  declare(scratch_.a_RF, "a", dtypes_.act, {R, F});
  declare(scratch_.shared_a_TF, "shared_a", dtypes_.act, {T, F});
  declare(scratch_.shared_y_TD, "shared_y", dtypes_.act, {T, D});
  if (!train) return;
  declare(scratch_.da_RF, "da", dtypes_.act, {R, F});
  declare(scratch_.dgu_RG, "dgate_up", dtypes_.act, {R, 2 * F});
  declare(scratch_.shared_da_TF, "shared_da", dtypes_.act, {T, F});
  declare(scratch_.shared_dgu_TG, "shared_dgate_up", dtypes_.act, {T, 2 * F});
  declare(scratch_.dz_TE, "dz", dtypes_.act, {T, dims_.E});
  declare(scratch_.dweight_R1, "drow_weight", dtypes_.acc, {R, 1});
  declare(scratch_.dweight_TK, "dweight", dtypes_.acc, {T, dims_.K});
}

Moe::Saved Moe::first(const Saved& s, int64_t T) const {
  const int64_t R = num_rows(T);
  return {s.z_TE.first(T),        s.weight_TK.first(T),  s.weight_R1.first(R),   s.offset_E1,
          s.row_token_R.first(R), s.row_slot_R.first(R), s.slot_row_TK.first(T), s.gu_RG.first(R),
          s.shared_gu_TG.first(T)};
}

void Moe::route(Ctx& ctx, View h_TD, View token_T, const Saved& saved, View expert_TK, const ChoiceRule& rule) const {
  const int64_t slots = h_TD.dim(0) * dims_.K;
  router_.forward(ctx, saved.z_TE, h_TD);
  if (!rule.read) {
    if (dims_.hash) {
      ctx.ops.router_hash(ctx.stream, expert_TK, tid2eid_.value, token_T);
    } else {
      ctx.ops.router_topk(ctx.stream, expert_TK, saved.z_TE, bias_.value);
    }
    if (rule.given.defined()) ctx.ops.override_rows(ctx.stream, expert_TK, rule.given);
  }
  ctx.ops.router_weights_forward(ctx.stream, saved.weight_TK, saved.z_TE, expert_TK, dims_.scaling);
  ctx.ops.dispatch_plan(ctx.stream, saved.offset_E1, saved.row_token_R, saved.row_slot_R, saved.slot_row_TK, expert_TK,
                        kRowAlignment);
  ctx.ops.gather_rows(ctx.stream, saved.weight_R1, saved.weight_TK.reshape({slots, 1}), saved.row_slot_R);
}

void Moe::forward(Ctx& ctx, View y_TD, View h_TD, View token_T, const Saved& saved, View expert_TK,
                  const ChoiceRule& rule) const {
  const int64_t T = h_TD.dim(0), R = saved.gu_RG.dim(0), F = dims_.F;
  const View x_RD = scratch_.x_RD.first(R), y_RD = scratch_.y_RD.first(R), a_RF = scratch_.a_RF.first(R);
  const View shared_a_TF = scratch_.shared_a_TF.first(T), shared_y_TD = scratch_.shared_y_TD.first(T);

  route(ctx, h_TD, token_T, saved, expert_TK, rule);

  shared_gate_.forward(ctx, saved.shared_gu_TG.slice(1, 0, F), h_TD);
  shared_up_.forward(ctx, saved.shared_gu_TG.slice(1, F, 2 * F), h_TD);
  ctx.ops.swiglu_forward(ctx.stream, shared_a_TF, saved.shared_gu_TG, View{}, dims_.swiglu_limit);
  shared_down_.forward(ctx, shared_y_TD, shared_a_TF);

  ctx.ops.gather_rows(ctx.stream, x_RD, h_TD, saved.row_token_R);
  ctx.ops.grouped_matmul(ctx.stream, saved.gu_RG, x_RD, gate_up_.value.t(), saved.offset_E1);
  // The router weight is applied before W2, as the released program does: one rounding less.
  ctx.ops.swiglu_forward(ctx.stream, a_RF, saved.gu_RG, saved.weight_R1.reshape({R}), dims_.swiglu_limit);
  ctx.ops.grouped_matmul(ctx.stream, y_RD, a_RF, down_.value.t(), saved.offset_E1);
  ctx.ops.combine(ctx.stream, y_TD, y_RD, saved.slot_row_TK, shared_y_TD);
}

void Moe::backward_shared(Ctx& ctx, View dh_TD, View dy_TD, View h_TD, const Saved& saved) const {
  const int64_t T = h_TD.dim(0), F = dims_.F;
  const View a_TF = scratch_.shared_a_TF.first(T), da_TF = scratch_.shared_da_TF.first(T);
  const View dgu_TG = scratch_.shared_dgu_TG.first(T);
  shared_down_.backward_input(ctx, da_TF, dy_TD, 0);
  ctx.ops.swiglu_backward(ctx.stream, dgu_TG, View{}, a_TF, da_TF, saved.shared_gu_TG, View{}, dims_.swiglu_limit);
  shared_down_.backward_weight(ctx, dy_TD, a_TF);
  const View dgate_TF = dgu_TG.slice(1, 0, F), dup_TF = dgu_TG.slice(1, F, 2 * F);
  shared_gate_.backward_weight(ctx, dgate_TF, h_TD);
  shared_up_.backward_weight(ctx, dup_TF, h_TD);
  shared_gate_.backward_input(ctx, dh_TD, dgate_TF, 0);
  shared_up_.backward_input(ctx, dh_TD, dup_TF, 1);
}

void Moe::backward_routed(Ctx& ctx, View dh_TD, View dweight_TK, View dy_TD, View h_TD, const Saved& saved) const {
  const int64_t slots = h_TD.dim(0) * dims_.K, R = saved.gu_RG.dim(0);
  const View rows_RD = scratch_.x_RD.first(R), dy_RD = scratch_.y_RD.first(R), a_RF = scratch_.a_RF.first(R);
  const View da_RF = scratch_.da_RF.first(R), dgu_RG = scratch_.dgu_RG.first(R);
  const View dweight_R1 = scratch_.dweight_R1.first(R);
  ctx.ops.gather_rows(ctx.stream, dy_RD, dy_TD, saved.row_token_R);
  ctx.ops.grouped_matmul(ctx.stream, da_RF, dy_RD, down_.value, saved.offset_E1);
  ctx.ops.swiglu_backward(ctx.stream, dgu_RG, dweight_R1.reshape({R}), a_RF, da_RF, saved.gu_RG,
                          saved.weight_R1.reshape({R}), dims_.swiglu_limit);
  if (down_.grad.defined())
    ctx.ops.grouped_matmul_dw(ctx.stream, down_.grad, dy_RD, a_RF, saved.offset_E1, down_.next_beta());
  if (gate_up_.grad.defined()) {
    ctx.ops.gather_rows(ctx.stream, rows_RD, h_TD, saved.row_token_R);
    ctx.ops.grouped_matmul_dw(ctx.stream, gate_up_.grad, dgu_RG, rows_RD, saved.offset_E1, gate_up_.next_beta());
  }
  ctx.ops.grouped_matmul(ctx.stream, rows_RD, dgu_RG, gate_up_.value, saved.offset_E1);
  ctx.ops.combine(ctx.stream, dh_TD, rows_RD, saved.slot_row_TK, dh_TD);
  ctx.ops.gather_rows(ctx.stream, dweight_TK.reshape({slots, 1}), dweight_R1, saved.slot_row_TK.reshape({slots}));
}

void Moe::backward(Ctx& ctx, View dh_TD, View dy_TD, View h_TD, const Saved& saved, View expert_TK,
                   const Balance& balance) const {
  const int64_t T = h_TD.dim(0);
  const View dweight_TK = scratch_.dweight_TK.first(T), dz_TE = scratch_.dz_TE.first(T);
  backward_shared(ctx, dh_TD, dy_TD, h_TD, saved);
  backward_routed(ctx, dh_TD, dweight_TK, dy_TD, h_TD, saved);
  const bool balanced = !dims_.hash && balance.coefficient > 0;
  ctx.ops.router_weights_backward(ctx.stream, dz_TE, dweight_TK, saved.weight_TK, saved.z_TE, expert_TK, dims_.scaling,
                                  balanced ? balance.loss_1 : View{}, balanced ? balance.coefficient : 0);
  router_.backward_weight(ctx, dz_TE, h_TD);
  router_.backward_input(ctx, dh_TD, dz_TE, 1);
}

void Moe::add_statistics(Ctx& ctx, const Statistics& to, const Saved& saved, View expert_TK) const {
  if (to.load_E.defined()) ctx.ops.expert_load(ctx.stream, to.load_E, expert_TK);
  if (to.entropy_1.defined()) ctx.ops.router_entropy(ctx.stream, to.entropy_1, saved.z_TE);
  if (!to.clamped_3.defined()) return;
  ctx.ops.swiglu_clamp_counts(ctx.stream, to.clamped_3, saved.gu_RG, saved.row_token_R, dims_.swiglu_limit);
  ctx.ops.swiglu_clamp_counts(ctx.stream, to.clamped_3, saved.shared_gu_TG, View{}, dims_.swiglu_limit);
}

void Moe::update_bias(Ctx& ctx, View load_E, double speed) const {
  CHECK(!dims_.hash, router_.w.name);
  ctx.ops.router_bias_update(ctx.stream, bias_.value, load_E, speed);
}

}  // namespace temper::layers
