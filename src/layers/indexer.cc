#include "layers/indexer.h"

#include <cmath>

namespace temper::layers {

Indexer::Indexer(const std::string& prefix, IndexerDims dims, Dtypes dtypes)
    : dims_(dims),
      dtypes_(dtypes),
      q_b_{matrix(prefix + "q_b_proj.weight", {dims.I * dims.P, dims.Q}, dtypes)},
      weights_{matrix(prefix + "scorer.weights_proj.weight", {dims.I, dims.D}, dtypes)},
      compressor_(prefix, {dims.D, dims.P, dims.rate, true, dims.eps, dims.num_ranks, dims.part}, dtypes) {}

void Indexer::collect(ParameterList& list) {
  compressor_.collect(list);
  list.insert(list.end(), {&q_b_.w, &weights_.w});
}

void Indexer::declare_scratch(Book& book, int64_t max_tokens, int64_t num_threads, bool train) {
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, q_b_.w.name + ":" + what, dtype, shape);
  };
  const int64_t T = max_tokens, C = RowCapacity{T, dims_.num_ranks}.entries(dims_.rate), I = dims_.I, P = dims_.P;
  compressor_.declare_saved(book, TensorKind::kScratch, entries_, max_tokens);
  declare(q_TIP_, "q", dtypes_.act, {T, I, P});
  declare(w_TI_, "w", dtypes_.acc, {T, I});
  const bool with_backward = train && is_trained();
  compressor_.declare_scratch(book, max_tokens, with_backward);
  if (!with_backward) return;
  book.declare(&d_.q_TIP, dtypes_.operands, q_b_.w.name + ":dq", dtypes_.act, {T, I, P});
  book.declare(&d_.w_TI, dtypes_.operands, q_b_.w.name + ":dw", dtypes_.act, {T, I});
  declare(d_.k_CP, "dk", dtypes_.acc, {C, P});
  declare(d_.workspace, "workspace", dtypes_.acc, {num_threads, C, P});
}

bool Indexer::is_trained() const { return q_b_.w.trainable || weights_.w.trainable || compressor_.is_trained(); }

double Indexer::scale() const { return 1 / std::sqrt(static_cast<double>(dims_.I * dims_.P)); }

void Indexer::queries(Ctx& ctx, View q_TIP, View w_TI, View h_TD, View r_TQ, View position_T,
                      const RotaryTable& rotary) const {
  q_b_.forward(ctx, q_TIP.reshape({q_TIP.dim(0), dims_.I * dims_.P}), r_TQ);
  ctx.ops.rope(ctx.stream, q_TIP, q_TIP, rotary.cos_sin_LP2, position_T, +1);
  weights_.forward(ctx, w_TI, h_TD);
}

void Indexer::choose(Ctx& ctx, View selected_TA, View q_TIP, View w_TI, View k_CP, View entry_begin_T,
                     View entry_count_T) const {
  ctx.ops.index_topk(ctx.stream, selected_TA, q_TIP, k_CP, w_TI, entry_begin_T, entry_count_T, scale());
}

void Indexer::select(Ctx& ctx, View selected_TA, View h_PD, View r_PQ, const DeviceLayout& layout,
                     const RotaryTable& rotary) const {
  const int64_t T = layout.num_tokens(), begin = dims_.part.begin(T), end = dims_.part.end(T);
  const DeviceEntries& entries = layout.entries(dims_.rate);
  const auto saved = compressor_.first(entries_, layout);
  const View q_TIP = q_TIP_.first(end - begin), w_TI = w_TI_.first(end - begin);
  compressor_.forward(ctx, saved, h_PD, layout, rotary);
  queries(ctx, q_TIP, w_TI, h_PD, r_PQ, layout.position_T.rows(begin, end), rotary);
  choose(ctx, selected_TA.rows(begin, end), q_TIP, w_TI, saved.k_CH, entries.entry_begin_T.rows(begin, end),
         entries.entry_count_T.rows(begin, end));
  gather_in_place(ctx, dims_.part, selected_TA, "index entries");
}

void Indexer::backward(Ctx& ctx, View loss_1, View h_PD, View r_PQ, const Teacher& teacher, double coefficient,
                       const DeviceLayout& layout, const RotaryTable& rotary) const {
  const int64_t T = layout.num_tokens(), begin = dims_.part.begin(T), end = dims_.part.end(T);
  const int64_t num_queries = end - begin;
  const int64_t C = layout.entries(dims_.rate).num_entries, I = dims_.I, P = dims_.P;
  const auto saved = compressor_.first(entries_, layout);
  const View q_TIP = q_TIP_.first(num_queries), w_TI = w_TI_.first(num_queries);
  const View position = layout.position_T.rows(begin, end);
  compressor_.forward(ctx, saved, h_PD, layout, rotary);
  queries(ctx, q_TIP, w_TI, h_PD, r_PQ, position, rotary);

  const View dq_TIP = d_.q_TIP.first(num_queries), dw_TI = d_.w_TI.first(num_queries);
  const View dk_CP = d_.k_CP.first(C);
  const View& all = d_.workspace;
  const View workspace(all.base, all.dtype, {all.dim(0), C, P}, all.offset);
  ctx.ops.indexer_loss(ctx.stream, loss_1, dq_TIP, dk_CP, dw_TI, q_TIP, saved.k_CH, w_TI, teacher.q_PNH, teacher.k_CH,
                       teacher.lse_PN, teacher.ranges, teacher.scale, scale(), coefficient, workspace);
  ctx.ops.rope(ctx.stream, dq_TIP, dq_TIP, rotary.cos_sin_LP2, position, -1);
  q_b_.backward_weight(ctx, dq_TIP.reshape({num_queries, I * P}), r_PQ);
  weights_.backward_weight(ctx, dw_TI, h_PD);
  compressor_.backward(ctx, View{}, dk_CP, h_PD, saved, layout, rotary);
}

}  // namespace temper::layers
