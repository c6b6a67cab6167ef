#include "layers/indexer.h"

#include <cmath>

namespace temper::layers {

Indexer::Indexer(const std::string& prefix, IndexerDims dims, Dtypes dtypes)
    : dims_(dims),
      dtypes_(dtypes),
      q_b_{matrix(prefix + "q_b_proj.weight", {dims.I * dims.P, dims.Q}, dtypes)},
      weights_{matrix(prefix + "scorer.weights_proj.weight", {dims.I, dims.D}, dtypes)},
      compressor_(prefix, {dims.D, dims.P, dims.rate, true, dims.eps}, dtypes) {}

void Indexer::collect(ParameterList& list) {
  const size_t before = list.size();
  compressor_.collect(list);
  list.insert(list.end(), {&q_b_.w, &weights_.w});
  for (size_t i = before; i < list.size(); ++i) list[i]->trainable = false;
}

void Indexer::declare_scratch(Book& book, int64_t max_tokens) {
  compressor_.declare_saved(book, TensorKind::kScratch, entries_, max_tokens);
  book.declare(&q_TIP_, TensorKind::kScratch, q_b_.w.name + ":q", dtypes_.act, {max_tokens, dims_.I, dims_.P});
  book.declare(&w_TI_, TensorKind::kScratch, q_b_.w.name + ":w", dtypes_.acc, {max_tokens, dims_.I});
}

void Indexer::queries(Ctx& ctx, View q_TIP, View w_TI, View h_TD, View r_TQ, View position_T,
                      const RotaryTable& rotary) const {
  q_b_.forward(ctx, q_TIP.reshape({q_TIP.dim(0), dims_.I * dims_.P}), r_TQ);
  ctx.ops.rope(ctx.stream, q_TIP, q_TIP, rotary.cos_sin_LP2, position_T, +1);
  weights_.forward(ctx, w_TI, h_TD);
}

void Indexer::choose(Ctx& ctx, View selected_TA, View q_TIP, View w_TI, View k_CP, View entry_begin_T,
                     View entry_count_T) const {
  const double scale = 1 / std::sqrt(static_cast<double>(dims_.I * dims_.P));
  ctx.ops.index_topk(ctx.stream, selected_TA, q_TIP, k_CP, w_TI, entry_begin_T, entry_count_T, scale);
}

void Indexer::select(Ctx& ctx, View selected_TA, View h_TD, View r_TQ, View position_T, const DeviceEntries& entries,
                     const RotaryTable& rotary) const {
  const int64_t T = h_TD.dim(0);
  const auto saved = entries_.first(T, entries.num_entries);
  const View q_TIP = q_TIP_.first(T), w_TI = w_TI_.first(T);
  compressor_.project(ctx, saved.z_TZ, saved.g_TZ, h_TD);
  compressor_.make_entries(ctx, saved, compress_ranges(entries), entries.position_C, rotary);
  queries(ctx, q_TIP, w_TI, h_TD, r_TQ, position_T, rotary);
  choose(ctx, selected_TA, q_TIP, w_TI, saved.k_CH, entries.entry_begin_T, entries.entry_count_T);
}

}  // namespace temper::layers
