#include "layers/attention.h"

#include <algorithm>
#include <cmath>

namespace temper::layers {
namespace {

AttentionDims of_rank(AttentionDims dims) {
  dims.N /= dims.part.size, dims.G /= dims.part.size;
  dims.indexer.part = dims.part;
  return dims;
}

}  // namespace

Attention::Attention(const std::string& prefix, const AttentionDims& dims, Dtypes dtypes)
    : dims_(of_rank(dims)),
      dtypes_(dtypes),
      sinks_(cut(fine_parameter(prefix + "sinks", {dims.N}, dtypes, Init::kZeros), dims.part)),
      q_a_{matrix(prefix + "q_a_proj.weight", {dims.Q, dims.D}, dtypes)},
      q_b_{cut(matrix(prefix + "q_b_proj.weight", {dims.N * dims.H, dims.Q}, dtypes), dims.part)},
      kv_{matrix(prefix + "kv_proj.weight", {dims.H, dims.D}, dtypes)},
      o_a_{cut(matrix(prefix + "o_a_proj.weight", {dims.G * dims.O, dims.N * dims.H / dims.G}, dtypes), dims.part)},
      o_b_{matrix(prefix + "o_b_proj.weight", {dims.D, dims.G * dims.O}, dtypes)},
      q_a_norm_{fine_parameter(prefix + "q_a_norm.weight", {dims.Q}, dtypes, Init::kOnes), dims.eps},
      kv_norm_{fine_parameter(prefix + "kv_norm.weight", {dims.H}, dtypes, Init::kOnes), dims.eps} {
  if (dims.rate > 0) {
    compressor_ = std::make_unique<Compressor>(
        prefix + "compressor.",
        CompressorDims{dims.D, dims.H, dims.rate, dims.csa, dims.eps, dims.num_ranks, dims.part}, dtypes);
  }
  if (!dims.csa) return;
  CHECK(dims.indexer.num_ranks == dims.num_ranks, dims.indexer.num_ranks);
  indexer_ = std::make_unique<Indexer>(prefix + "compressor.indexer.", dims_.indexer, dtypes);
}

void Attention::collect(ParameterList& list) {
  list.insert(list.end(), {&sinks_, &q_a_.w, &q_a_norm_.w, &q_b_.w, &kv_.w, &kv_norm_.w, &o_a_.w, &o_b_.w});
  if (compressor_) compressor_->collect(list);
  if (indexer_) indexer_->collect(list);
}

void Attention::declare_saved(Book& book, Saved& saved, int64_t max_tokens) const {
  const int64_t T = max_tokens, P = dims_.part.piece(T), padded = dims_.part.padded(T), N = dims_.N, H = dims_.H;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kSaved, sinks_.name + ":" + what, dtype, shape);
  };
  declare(saved.qa_PQ, "qa", dtypes_.act, {P, dims_.Q});
  declare(saved.qa_rstd_P, "qa_rstd", dtypes_.acc, {P});
  declare(saved.r_TQ, "r", dtypes_.act, {padded, dims_.Q});
  declare(saved.qb_TNH, "qb", dtypes_.act, {T, N, H});
  declare(saved.q_rstd_R, "q_rstd", dtypes_.acc, {T * N});
  declare(saved.q_TNH, "q", dtypes_.act, {T, N, H});
  declare(saved.kv_PH, "kv", dtypes_.act, {P, H});
  declare(saved.kv_rstd_P, "kv_rstd", dtypes_.acc, {P});
  declare(saved.c_JH, "c", dtypes_.act, {num_history(T) + padded, H});
  declare(saved.o_TNH, "o", dtypes_.act, {T, N, H});
  declare(saved.lse_TN, "lse", dtypes_.acc, {T, N});
  declare(saved.y1_PW, "y1", dtypes_.act, {P, dims_.part.size * dims_.G * dims_.O});
  if (compressor_) compressor_->declare_saved(book, TensorKind::kSaved, saved.entries, max_tokens);
}

void Attention::declare_scratch(Book& book, int64_t max_tokens, int64_t num_threads, bool train) {
  const ScratchScope scope(book);
  const int64_t T = max_tokens, N = dims_.N, H = dims_.H;
  const int64_t C = dims_.rate > 0 ? RowCapacity{T, dims_.num_ranks}.entries(dims_.rate) : 0;
  const int64_t history = num_history(T), J = history + T;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, sinks_.name + ":" + what, dtype, shape);
  };
  const auto declare_operand = [&](View& view, const char* what, Shape shape) {
    book.declare(&view, dtypes_.operands, sinks_.name + ":" + what, dtypes_.act, shape);
  };
  const int64_t W = dims_.G * dims_.O, P = dims_.part.piece(T), padded = dims_.part.padded(T);
  const bool is_cut = dims_.part.is_cut();
  declare(scratch_.ou_TNH, "ou", dtypes_.act, {T, N, H});
  if (is_cut) {
    declare(scratch_.y1_TW, "all_y1", dtypes_.act, {T, W});
    declare(scratch_.exchange_NW, "y1_exchange", dtypes_.act, {padded, W});
  }
  if (indexer_) {
    const ScratchScope forward_only(book);
    indexer_->declare_scratch(book, max_tokens, num_threads, train);
    if (is_cut && train && indexer_->is_trained()) {
      declare(scratch_.q_PNH, "own_q", dtypes_.act, {P, dims_.part.size * N, H});
      declare(scratch_.q_exchange_NX, "q_exchange", dtypes_.act, {padded, N * H});
      declare(scratch_.lse_PN, "own_lse", dtypes_.acc, {P, dims_.part.size * N});
      declare(scratch_.lse_exchange_NX, "lse_exchange", dtypes_.acc, {padded, N});
    }
  }
  if (compressor_) compressor_->declare_scratch(book, max_tokens, train);
  if (!train) return;
  if (is_cut) {
    declare(scratch_.dy1_PW, "own_dy1", dtypes_.act, {P, dims_.part.size * W});
  }
  declare(scratch_.do_TNH, "do", dtypes_.act, {T, N, H});
  declare_operand(scratch_.dq_TNH, "dq", {T, N, H});
  declare_operand(scratch_.dy1_TW, "dy1", {T, dims_.G * dims_.O});
  declare_operand(scratch_.dqa_PQ, "dqa", {P, dims_.Q});
  declare_operand(scratch_.dkv_PH, "dkv", {P, H});
  declare(scratch_.dr_TQ, "dr", dtypes_.acc, {padded, dims_.Q});
  declare(scratch_.dc_JH, "dc", dtypes_.acc, {history + padded, H});
  if (dims_.num_ranks > 1) declare(scratch_.from_next_HH, "from_next", dtypes_.acc, {history, H});
  if (compressor_) declare(scratch_.dk_CH, "dk", dtypes_.acc, {C, H});
  declare(scratch_.workspace, "workspace", dtypes_.acc, {num_threads, J + C, H});
}

int64_t Attention::num_history(int64_t max_tokens) const {
  return dims_.num_ranks == 1 ? 0 : RowCapacity{max_tokens, dims_.num_ranks}.window_history(dims_.window);
}

Attention::Saved Attention::first(const Saved& s, int64_t T) const {
  const int64_t P = dims_.part.end(T) - dims_.part.begin(T);
  const View c_TH = s.c_JH.first(T);
  return {s.r_TQ.first(T),
          s.qb_TNH.first(T),
          s.q_TNH.first(T),
          s.o_TNH.first(T),
          s.qa_PQ.first(P),
          s.kv_PH.first(P),
          s.y1_PW.first(P),
          c_TH,
          c_TH,
          s.qa_rstd_P.first(P),
          s.q_rstd_R.first(T * dims_.N),
          s.kv_rstd_P.first(P),
          s.lse_TN.first(T),
          {}};
}

Attention::Saved Attention::first(const Saved& s, const DeviceLayout& layout) const {
  const int64_t T = layout.num_tokens(), history = layout.host().history_R[layout.cut().rank];
  Saved out = first(s, T);
  out.c_JH = s.c_JH.first(history + T);
  out.c_TH = out.c_JH.rows(history, history + T);
  if (compressor_) out.entries = compressor_->first(s.entries, layout);
  return out;
}

View Attention::grouped(View x_TX) const {
  return x_TX.reshape({x_TX.dim(0), dims_.G, x_TX.strides[0] / dims_.G}).transpose(0, 1);
}

double Attention::scale() const { return 1 / std::sqrt(static_cast<double>(dims_.H)); }

bool Attention::is_choosing(const DeviceLayout& layout, EntryUse use) const {
  if (!indexer_ || use == EntryUse::kAll || layout.entries(dims_.rate).num_entries == 0) return false;
  return use == EntryUse::kGiven || layout.entries(dims_.rate).max_count > dims_.indexer.A;
}

backend::KeyRanges Attention::ranges(const DeviceLayout& layout, View selected_TA, EntryUse use) const {
  backend::KeyRanges out;
  out.key_begin_T = layout.key_begin_T, out.key_end_T = layout.key_end_T;
  out.num_pairs = layout.host().num_window_pairs;
  if (!compressor_) return out;
  const auto& entries = layout.entries(dims_.rate);
  if (entries.num_entries == 0) return out;
  out.entry_begin_T = entries.entry_begin_T, out.entry_count_T = entries.entry_count_T;
  int64_t limit = entries.max_count;
  if (is_choosing(layout, use)) {
    out.selected_TA = selected_TA;
    limit = dims_.indexer.A;
  }
  for (const auto& host : layout.host().entries)
    if (host.rate == dims_.rate) out.num_pairs += count_entry_pairs(host, limit);
  return out;
}

void Attention::project(Ctx& ctx, const Saved& saved, View h_PD, View position_T, const RotaryTable& rotary) const {
  const int64_t T = position_T.dim(0), N = dims_.N, H = dims_.H;
  q_a_.forward(ctx, saved.qa_PQ, h_PD);
  q_a_norm_.forward(ctx, own(saved.r_TQ), saved.qa_rstd_P, saved.qa_PQ);
  gather_in_place(ctx, dims_.part, saved.r_TQ, "latent queries");
  q_b_.forward(ctx, saved.qb_TNH.reshape({T, N * H}), saved.r_TQ);
  // The norm of each query head has no weight.
  ctx.ops.rmsnorm_forward(ctx.stream, saved.q_TNH.reshape({T * N, H}), saved.q_rstd_R, saved.qb_TNH.reshape({T * N, H}),
                          View{}, dims_.eps);
  ctx.ops.rope(ctx.stream, saved.q_TNH, saved.q_TNH, rotary.cos_sin_LP2, position_T, +1);
  const View c_PH = own(saved.c_TH);
  kv_.forward(ctx, saved.kv_PH, h_PD);
  kv_norm_.forward(ctx, c_PH, saved.kv_rstd_P, saved.kv_PH);
  rope_rows(ctx, c_PH, c_PH, rotary, own(position_T), +1);
  gather_in_place(ctx, dims_.part, saved.c_TH, "latent keys");
}

void Attention::attend(Ctx& ctx, const Saved& saved, View c_JH, View k_CH, const backend::KeyRanges& ranges) const {
  ctx.ops.attention_forward(ctx.stream, saved.o_TNH, saved.lse_TN, saved.q_TNH, c_JH, k_CH, sinks_.value, ranges,
                            scale());
}

void Attention::output(Ctx& ctx, View y_PD, const Saved& saved, View position_T, const RotaryTable& rotary) const {
  const int64_t T = saved.o_TNH.dim(0);
  const View ou_TNH = scratch_.ou_TNH.first(T), y1_TW = dims_.part.is_cut() ? scratch_.y1_TW.first(T) : saved.y1_PW;
  // Values carry the rotation of their keys, so the output is rotated back.
  ctx.ops.rope(ctx.stream, ou_TNH, saved.o_TNH, rotary.cos_sin_LP2, position_T, -1);
  const View oa_GOX = o_a_.w.value.reshape({dims_.G, dims_.O, dims_.N * dims_.H / dims_.G});
  ctx.ops.matmul(ctx.stream, grouped(y1_TW), grouped(ou_TNH), oa_GOX.t(), 0);
  if (dims_.part.is_cut()) columns_to_rows(ctx, dims_.part, saved.y1_PW, y1_TW, scratch_.exchange_NW, "output groups");
  o_b_.forward(ctx, y_PD, saved.y1_PW);
}

void Attention::forward(Ctx& ctx, View y_PD, View h_PD, const Saved& saved, View selected_TA, const ChoiceRule& rule,
                        EntryUse use, const DeviceLayout& layout, const RotaryTable& rotary) const {
  project(ctx, saved, h_PD, layout.position_T, rotary);
  receive_history(ctx, saved.c_JH, layout.cut(), layout.host().history_R, "keys");
  View k_CH;
  if (compressor_ && layout.entries(dims_.rate).num_entries > 0) {
    compressor_->forward(ctx, saved.entries, h_PD, layout, rotary);
    k_CH = saved.entries.k_CH;
    if (!rule.read && is_choosing(layout, use)) {
      indexer_->select(ctx, selected_TA, h_PD, own(saved.r_TQ), layout, rotary);
      if (rule.given.defined()) ctx.ops.override_rows(ctx.stream, selected_TA, rule.given);
    }
  }
  attend(ctx, saved, saved.c_JH, k_CH, ranges(layout, selected_TA, use));
  output(ctx, y_PD, saved, layout.position_T, rotary);
}

void Attention::backward(Ctx& ctx, View dh_PD, View dy_PD, View h_PD, const Saved& saved, View selected_TA,
                         EntryUse use, const DeviceLayout& layout, const RotaryTable& rotary) const {
  const bool is_cut = dims_.part.is_cut();
  const int64_t T = layout.num_tokens(), J = saved.c_JH.dim(0), N = dims_.N, H = dims_.H;
  const int64_t P = h_PD.dim(0);
  const int64_t C = compressor_ ? layout.entries(dims_.rate).num_entries : 0;
  const View do_TNH = scratch_.do_TNH.first(T), dq_TNH = scratch_.dq_TNH.first(T);
  const View dy1_TW = scratch_.dy1_TW.first(T), dc_JH = scratch_.dc_JH.first(J), dkv_PH = scratch_.dkv_PH.first(P);
  const View dqa_PQ = scratch_.dqa_PQ.first(P), dr_TQ = scratch_.dr_TQ.first(T);

  // Output projections (12.I).
  const View dy1_PW = is_cut ? scratch_.dy1_PW.first(dy_PD.dim(0)) : dy1_TW;
  o_b_.backward_weight(ctx, dy_PD, saved.y1_PW);
  o_b_.backward_input(ctx, dy1_PW, dy_PD, 0);
  if (is_cut) rows_to_columns(ctx, dims_.part, dy1_TW, dy1_PW, scratch_.exchange_NW, "gradients of output groups");
  const Shape groups{dims_.G, dims_.O, N * H / dims_.G};
  ctx.ops.matmul(ctx.stream, grouped(do_TNH), grouped(dy1_TW), o_a_.w.value.reshape(groups), 0);
  ctx.ops.rope(ctx.stream, do_TNH, do_TNH, rotary.cos_sin_LP2, layout.position_T, +1);

  // Core attention (12.D).
  View k_CH, dk_CH;
  if (C > 0) k_CH = saved.entries.k_CH, dk_CH = scratch_.dk_CH.first(C);
  const View& all = scratch_.workspace;
  const View workspace(all.base, all.dtype, {all.dim(0), J + C, H}, all.offset);
  ctx.ops.attention_backward(ctx.stream, dq_TNH, dc_JH, dk_CH, sinks_.grad, do_TNH, saved.o_TNH, saved.lse_TN,
                             saved.q_TNH, saved.c_JH, k_CH, sinks_.value, ranges(layout, selected_TA, use), scale(),
                             workspace);
  if (o_a_.w.grad.defined()) {
    const View ou_TNH = saved.o_TNH;  // in its place: nobody reads o after this
    ctx.ops.rope(ctx.stream, ou_TNH, saved.o_TNH, rotary.cos_sin_LP2, layout.position_T, -1);
    weight_work(ctx, [this, groups, dy1_TW, ou_TNH](Ctx& at) {
      at.ops.matmul(at.stream, o_a_.w.grad.reshape(groups), grouped(dy1_TW).t(), grouped(ou_TNH), o_a_.w.next_beta());
    });
  }

  // Keys: unrope, norm, projection.
  return_history(ctx, dc_JH, scratch_.from_next_HH, layout.cut(), layout.host().history_R, "gradients of keys");
  const View dc_PH = add_in_place(ctx, dims_.part, dc_JH.rows(J - T, J), "gradients of latent keys");
  rope_rows(ctx, dc_PH, dc_PH, rotary, own(layout.position_T), -1);
  kv_norm_.backward(ctx, dkv_PH, dc_PH, saved.kv_PH, saved.kv_rstd_P);
  kv_.backward_weight(ctx, dkv_PH, h_PD);
  kv_.backward_input(ctx, dh_PD, dkv_PH, 0);

  // Queries: unrope, norm per head, up projection, norm, down projection.
  const Shape heads{T * N, H};
  ctx.ops.rope(ctx.stream, dq_TNH, dq_TNH, rotary.cos_sin_LP2, layout.position_T, -1);
  ctx.ops.rmsnorm_backward(ctx.stream, dq_TNH.reshape(heads), View{}, dq_TNH.reshape(heads),
                           saved.qb_TNH.reshape(heads), saved.q_rstd_R, View{});
  const View dqb_TX = dq_TNH.reshape({T, N * H});
  q_b_.backward_weight(ctx, dqb_TX, saved.r_TQ);
  q_b_.backward_input(ctx, dr_TQ, dqb_TX, 0);
  const View dr_PQ = add_in_place(ctx, dims_.part, dr_TQ, "gradients of latent queries");
  q_a_norm_.backward(ctx, dqa_PQ, dr_PQ, saved.qa_PQ, saved.qa_rstd_P);
  q_a_.backward_weight(ctx, dqa_PQ, h_PD);
  q_a_.backward_input(ctx, dh_PD, dqa_PQ, 1);

  if (C > 0) compressor_->backward(ctx, dh_PD, dk_CH, h_PD, saved.entries, layout, rotary);
}

// Of several ranks the attention of this rank's rows, for which the heads of all ranks come together.
Indexer::Teacher Attention::teacher(Ctx& ctx, const Saved& saved, View selected_TA, EntryUse use,
                                    const DeviceLayout& layout) const {
  const TensorPart& part = dims_.part;
  Indexer::Teacher teacher{saved.q_TNH, saved.entries.k_CH, saved.lse_TN, ranges(layout, selected_TA, use), scale()};
  teacher.ranges.num_pairs -= layout.host().num_window_pairs;  // the window is not the indexer's matter
  if (!part.is_cut()) return teacher;
  const int64_t T = layout.num_tokens(), begin = part.begin(T), end = part.end(T);
  teacher.q_PNH = scratch_.q_PNH.first(end - begin), teacher.lse_PN = scratch_.lse_PN.first(end - begin);
  columns_to_rows(ctx, part, teacher.q_PNH, saved.q_TNH, scratch_.q_exchange_NX, "queries of all heads");
  columns_to_rows(ctx, part, teacher.lse_PN, saved.lse_TN, scratch_.lse_exchange_NX, "logsumexp of all heads");
  backend::KeyRanges& ranges = teacher.ranges;
  for (View* by_row :
       {&ranges.key_begin_T, &ranges.key_end_T, &ranges.entry_begin_T, &ranges.entry_count_T, &ranges.selected_TA})
    if (by_row->defined()) *by_row = by_row->rows(begin, end);
  ranges.num_pairs *= static_cast<double>(end - begin) / static_cast<double>(std::max<int64_t>(T, 1));
  return teacher;
}

void Attention::backward_indexer(Ctx& ctx, View loss_1, View h_PD, const Saved& saved, View selected_TA, EntryUse use,
                                 double coefficient, const DeviceLayout& layout, const RotaryTable& rotary) const {
  CHECK(indexer_ != nullptr, sinks_.name);
  if (!indexer_->is_trained() || layout.entries(dims_.rate).num_entries == 0) return;
  indexer_->backward(ctx, loss_1, h_PD, own(saved.r_TQ), teacher(ctx, saved, selected_TA, use, layout), coefficient,
                     layout, rotary);
}

}  // namespace temper::layers
