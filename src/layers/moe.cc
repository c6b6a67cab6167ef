#include "layers/moe.h"

#include <array>

namespace temper::layers {

Moe::Moe(const std::string& prefix, MoeDims dims, Dtypes dtypes)
    : dims_(dims),
      dtypes_(dtypes),
      router_{matrix(prefix + "gate.weight", {dims.E, dims.D}, dtypes)},
      experts_(prefix + "experts.", {dims.D, dims.F, dims.E, dims.swiglu_limit, dims.part}, dtypes),
      dispatch_({dims.D, dims.E, dims.K, dims.part}, dtypes),
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
  list.insert(list.end(), {&router_.w, dims_.hash ? &tid2eid_ : &bias_});
  experts_.collect(list);
  list.insert(list.end(), {&shared_gate_.w, &shared_up_.w, &shared_down_.w});
}

void Moe::declare_saved(Book& book, Saved& saved, int64_t max_tokens) const {
  const int64_t T = max_tokens, R = dispatch_.max_rows(T), K = dims_.K, F = dims_.F;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kSaved, router_.w.name + ":" + what, dtype, shape);
  };
  declare(saved.z_TE, "z", dtypes_.acc, {T, dims_.E});
  declare(saved.weight_TK, "weight", dtypes_.acc, {T, K});
  declare(saved.weight_R1, "row_weight", dtypes_.acc, {R, 1});
  dispatch_.declare_saved(book, saved.plan, router_.w.name, T);
  declare(saved.gu_RG, "gate_up", dtypes_.act, {R, 2 * F});
  declare(saved.shared_gu_TG, "shared_gate_up", dtypes_.act, {T, 2 * F});
  if (!dispatch_.is_exchange()) return;
  declare(saved.x_RD, "x", dtypes_.act, {R, dims_.D});
  declare(saved.clamped_3, "clamped", DType::kI64, {3});
}

void Moe::declare_scratch(Book& book, int64_t max_tokens, bool train) {
  const ScratchScope scope(book);
  const int64_t T = max_tokens, R = dispatch_.max_rows(T), D = dims_.D, F = dims_.F;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, router_.w.name + ":" + what, dtype, shape);
  };
  const auto declare_operand = [&](View& view, const char* what, Shape shape) {
    book.declare(&view, dtypes_.operands, router_.w.name + ":" + what, dtypes_.act, shape);
  };
  if (!dispatch_.is_exchange()) declare(scratch_.x_RD, "x", dtypes_.act, {R, D});
  {
    const ScratchScope same(book);  // as dx, where dy need not be kept
    declare_operand(scratch_.y_RD, "y", {R, D});
  }
  declare(scratch_.dx_RD, "dx", dtypes_.act, {R, D});
  experts_.declare_scratch(book, R, train);
  dispatch_.declare_scratch(book, router_.w.name, T);
  declare_operand(scratch_.shared_a_TF, "shared_a", {T, F});
  declare(scratch_.shared_y_TD, "shared_y", dtypes_.act, {T, D});
  if (!train) return;
  declare(scratch_.shared_da_TF, "shared_da", dtypes_.act, {T, F});
  declare_operand(scratch_.shared_dgu_TG, "shared_dgate_up", {T, 2 * F});
  declare_operand(scratch_.dz_TE, "dz", {T, dims_.E});
  declare(scratch_.dweight_R1, "drow_weight", dtypes_.acc, {R, 1});
  declare(scratch_.dweight_TK, "dweight", dtypes_.acc, {T, dims_.K});
  declare(scratch_.load_E, "load", DType::kI32, {dims_.E});
}

Moe::Saved Moe::first(const Saved& s, int64_t T) const {
  const Dispatch::Saved plan = dispatch_.first(s.plan, T);
  if (dispatch_.is_exchange())
    return {s.z_TE.first(T), s.weight_TK.first(T),    s.weight_R1, plan,
            s.gu_RG,         s.shared_gu_TG.first(T), s.x_RD,      s.clamped_3};
  const int64_t R = dispatch_.max_rows(T);
  return {s.z_TE.first(T),
          s.weight_TK.first(T),
          s.weight_R1.first(R),
          plan,
          s.gu_RG.first(R),
          s.shared_gu_TG.first(T),
          {},
          {}};
}

Moe::RoundViews Moe::views(const Saved& saved, const ExpertRows& rows) const {
  const int64_t R = rows.count;
  return {(dispatch_.is_exchange() ? saved.x_RD : scratch_.x_RD).first(R), scratch_.y_RD.first(R),
          saved.weight_R1.first(R), saved.gu_RG.first(R)};
}

void Moe::route(Ctx& ctx, View h_TD, View token_T, const Saved& saved, View expert_TK, const ChoiceRule& rule) const {
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
  dispatch_.plan(ctx, saved.plan, expert_TK);
}

// Input and router weights of the round's rows come to the experts, and become gu. meanwhile() is work for the time of
// their way.
template <class Work>
void Moe::receive(Ctx& ctx, const RoundViews& v, View h_TD, const Saved& saved, const ExpertRows& rows,
                  const Work& meanwhile) const {
  const auto weights = dispatch_.weights_to_experts(ctx, saved.weight_TK, rows, "dispatch of weights");
  const auto hidden = dispatch_.hidden_to_experts(ctx, h_TD, rows, "dispatch");
  meanwhile();
  dispatch_.arrive(ctx, v.weight_R1, weights, rows);
  dispatch_.arrive(ctx, v.x_RD, hidden, rows);
  experts_.gate_up(ctx, v.gu_RG, v.x_RD, rows);
}

// The shared expert in two parts, each for the time of one way of the others' rows.
void Moe::shared_gate_up(Ctx& ctx, View h_TD, const Saved& saved) const {
  const int64_t F = dims_.F;
  shared_gate_.forward(ctx, saved.shared_gu_TG.slice(1, 0, F), h_TD);
  shared_up_.forward(ctx, saved.shared_gu_TG.slice(1, F, 2 * F), h_TD);
}

void Moe::shared_down(Ctx& ctx, View y_TD, const Saved& saved) const {
  const View a_TF = scratch_.shared_a_TF.first(y_TD.dim(0));
  ctx.ops.swiglu_forward(ctx.stream, a_TF, saved.shared_gu_TG, View{}, dims_.swiglu_limit);
  shared_down_.forward(ctx, y_TD, a_TF);
}

void Moe::forward(Ctx& ctx, View y_TD, View h_TD, View token_T, const Saved& saved, View expert_TK,
                  const ChoiceRule& rule) const {
  const View shared_y_TD = scratch_.shared_y_TD.first(h_TD.dim(0));
  route(ctx, h_TD, token_T, saved, expert_TK, rule);

  // The first round comes last: it is the one whose tensors are kept.
  const auto rounds = dispatch_.rounds(ctx, saved.plan);
  if (rounds.size() > 1) ctx.ops.fill(ctx.stream, saved.clamped_3, 0);
  View returned_PD;
  for (int64_t i = Dispatch::num_rounds(rounds) - 1; i >= 0; --i) {
    const ExpertRows rows = dispatch_.begin_round(ctx, saved.plan, rounds, i);
    const RoundViews v = views(saved, rows);
    receive(ctx, v, h_TD, saved, rows, [&] {
      if (i == 0) shared_gate_up(ctx, h_TD, saved);
    });
    if (i > 0) ctx.ops.swiglu_clamp_counts(ctx.stream, saved.clamped_3, v.gu_RG, View{}, dims_.swiglu_limit);
    experts_.down(ctx, v.y_RD, v.gu_RG, v.weight_R1, rows);
    const auto back = dispatch_.hidden_from_experts(ctx, v.y_RD, rows, "combine");
    if (i == 0) shared_down(ctx, shared_y_TD, saved);
    returned_PD = dispatch_.arrive_back(ctx, back, rows);
  }
  ctx.ops.combine(ctx.stream, y_TD, returned_PD, saved.plan.slot_row_TK, shared_y_TD);
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

// Gradients of a round's rows come to the experts, and become that of gu.
template <class Work>
void Moe::backward_down(Ctx& ctx, const RoundViews& v, View dy_TD, const ExpertRows& rows,
                        const Work& meanwhile) const {
  const auto way = dispatch_.hidden_to_experts(ctx, dy_TD, rows, "dispatch of gradients");
  meanwhile();
  dispatch_.arrive(ctx, v.y_RD, way, rows);
  experts_.backward_down(ctx, scratch_.dweight_R1.first(rows.count), v.y_RD, v.gu_RG, v.weight_R1, rows);
}

// One rank has not kept the experts' input.
void Moe::backward_gate_up_weight(Ctx& ctx, const RoundViews& v, View h_TD, const ExpertRows& rows) const {
  if (!experts_.trains_gate_up()) return;
  if (!dispatch_.is_exchange()) dispatch_.arrive(ctx, v.x_RD, dispatch_.hidden_to_experts(ctx, h_TD, rows, ""), rows);
  experts_.backward_gate_up_weight(ctx, v.x_RD, rows);
}

// Some time after backward_experts. Of a single round everything is there still; of several only the last one's, so
// that all of them are gone through again.
void Moe::backward_weights_later(Ctx& ctx, View dy_TD, View h_TD, const Saved& saved) const {
  const auto rounds = dispatch_.rounds(ctx, saved.plan);
  for (int64_t i = 0; i < Dispatch::num_rounds(rounds); ++i) {
    const ExpertRows rows = dispatch_.begin_round(ctx, saved.plan, rounds, i);
    const RoundViews v = views(saved, rows);
    if (rounds.size() > 1) receive(ctx, v, h_TD, saved, rows, [] {}), backward_down(ctx, v, dy_TD, rows, [] {});
    experts_.backward_down_weight(ctx, v.y_RD, rows);
    backward_gate_up_weight(ctx, v, h_TD, rows);
  }
}

// Of all experts. The shared one's part runs while gradients come to the others, the gradients of gate and up while the
// rows' go back; those of down come first, since dx may take the memory of dy.
void Moe::backward_experts(Ctx& ctx, View dh_TD, View dweight_TK, View dy_TD, View h_TD, const Saved& saved) const {
  const auto rounds = dispatch_.rounds(ctx, saved.plan);
  View returned_PD, returned_P1;
  for (int64_t i = 0; i < Dispatch::num_rounds(rounds); ++i) {
    const ExpertRows rows = dispatch_.begin_round(ctx, saved.plan, rounds, i);
    const RoundViews v = views(saved, rows);
    const View dx_RD = scratch_.dx_RD.first(rows.count), dweight_R1 = scratch_.dweight_R1.first(rows.count);
    if (i > 0) receive(ctx, v, h_TD, saved, rows, [] {});
    backward_down(ctx, v, dy_TD, rows, [&] {
      if (i == 0) backward_shared(ctx, dh_TD, dy_TD, h_TD, saved);
    });
    if (!ctx.later) experts_.backward_down_weight(ctx, v.y_RD, rows);
    experts_.backward_input(ctx, dx_RD, rows);
    const auto back = dispatch_.hidden_from_experts(ctx, dx_RD, rows, "combine of gradients");
    const auto weights_back = dispatch_.weights_from_experts(ctx, dweight_R1, rows, "gradients of weights");
    if (!ctx.later) backward_gate_up_weight(ctx, v, h_TD, rows);
    returned_PD = dispatch_.arrive_back(ctx, back, rows);
    returned_P1 = dispatch_.arrive_back(ctx, weights_back, rows);
  }
  if (ctx.later)
    weight_work(ctx, [this, dy_TD, h_TD, saved](Ctx& at) { backward_weights_later(at, dy_TD, h_TD, saved); });
  const View slot_row_TK = saved.plan.slot_row_TK;
  ctx.ops.combine(ctx.stream, dh_TD, returned_PD, slot_row_TK, dh_TD);
  const int64_t slots = slot_row_TK.size();
  ctx.ops.gather_rows(ctx.stream, dweight_TK.reshape({slots, 1}), returned_P1, slot_row_TK.reshape({slots}));
}

// Of all ranks that have rows of the micro-batch.
void Moe::count_loads(Ctx& ctx, View expert_TK) const {
  ctx.ops.fill(ctx.stream, scratch_.load_E, 0);
  ctx.ops.expert_load(ctx.stream, scratch_.load_E, expert_TK);
  for (comm::Comm* ranks : {ctx.groups.cp, ctx.groups.tp})
    if (ranks) ranks->all_reduce(ctx.stream, scratch_.load_E, comm::Reduce::kSum, {"loads", ctx.layer});
}

void Moe::backward(Ctx& ctx, View dh_TD, View dy_TD, View h_TD, const Saved& saved, View expert_TK,
                   const Balance& balance) const {
  const int64_t T = h_TD.dim(0);
  const View dweight_TK = scratch_.dweight_TK.first(T), dz_TE = scratch_.dz_TE.first(T);
  backward_experts(ctx, dh_TD, dweight_TK, dy_TD, h_TD, saved);
  const bool balanced = !dims_.hash && balance.coefficient > 0;
  if (balanced) count_loads(ctx, expert_TK);
  ctx.ops.router_weights_backward(ctx.stream, dz_TE, dweight_TK, saved.weight_TK, saved.z_TE, expert_TK, dims_.scaling,
                                  balanced ? balance.loss_1 : View{}, balanced ? balance.coefficient : 0,
                                  scratch_.load_E, balance.num_tokens);
  router_.backward_weight(ctx, dz_TE, h_TD);
  router_.backward_input(ctx, dh_TD, dz_TE, 1);
}

void Moe::add_statistics(Ctx& ctx, const Statistics& to, const Saved& saved, View expert_TK) const {
  if (to.load_E.defined()) ctx.ops.expert_load(ctx.stream, to.load_E, expert_TK);
  if (to.entropy_1.defined()) ctx.ops.router_entropy(ctx.stream, to.entropy_1, saved.z_TE);
  if (!to.clamped_3.defined()) return;
  const auto rounds = dispatch_.rounds(ctx, saved.plan);
  const bool is_exchange = dispatch_.is_exchange();  // whose rows have no others behind them
  ctx.ops.swiglu_clamp_counts(ctx.stream, to.clamped_3,
                              is_exchange ? saved.gu_RG.first(rounds[0].num_rows()) : saved.gu_RG,
                              is_exchange ? View{} : saved.plan.row_token_P, dims_.swiglu_limit);
  ctx.ops.swiglu_clamp_counts(ctx.stream, to.clamped_3, saved.shared_gu_TG, View{}, dims_.swiglu_limit);
  if (rounds.size() <= 1) return;
  std::array<int64_t, 3> sum{}, further{};
  ctx.device.copy_to_host(ctx.stream, sum.data(), to.clamped_3);
  ctx.device.copy_to_host(ctx.stream, further.data(), saved.clamped_3);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += further[i];
  ctx.device.copy_to_device(ctx.stream, to.clamped_3, sum.data());
}

void Moe::update_bias(Ctx& ctx, View load_E, double speed) const {
  CHECK(!dims_.hash, router_.w.name);
  ctx.ops.router_bias_update(ctx.stream, bias_.value, load_E, speed);
}

}  // namespace temper::layers
