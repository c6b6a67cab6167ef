#include "layers/compressor.h"

namespace temper::layers {

Compressor::Compressor(const std::string& prefix, CompressorDims dims, Dtypes dtypes)
    : dims_(dims),
      dtypes_(dtypes),
      kv_{matrix(prefix + "kv_proj.weight", {dims.Z(), dims.D}, dtypes)},
      gate_{matrix(prefix + "gate_proj.weight", {dims.Z(), dims.D}, dtypes)},
      ape_(fine_parameter(prefix + "position_bias", {dims.rate, dims.Z()}, dtypes, Init::kZeros)),
      norm_{fine_parameter(prefix + "kv_norm.weight", {dims.H}, dtypes, Init::kOnes), dims.eps} {}

void Compressor::collect(ParameterList& list) { list.insert(list.end(), {&kv_.w, &gate_.w, &ape_, &norm_.w}); }

void Compressor::declare_saved(Book& book, TensorKind kind, Saved& saved, int64_t max_tokens) const {
  const RowCapacity rows{max_tokens, dims_.num_ranks};
  const int64_t J = rows.entry_history(dims_.rate) + dims_.part.padded(max_tokens), E = rows.own_entries(dims_.rate);
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, kind, ape_.name + ":" + what, dtype, shape);
  };
  declare(saved.z_JZ, "z", dtypes_.acc, {J, dims_.Z()});
  declare(saved.g_JZ, "g", dtypes_.acc, {J, dims_.Z()});
  declare(saved.v_EH, "v", dtypes_.act, {E, dims_.H});
  declare(saved.k_CH, "k", dtypes_.act, {rows.entries(dims_.rate), dims_.H});
  declare(saved.v_rstd_E, "v_rstd", dtypes_.acc, {E});
}

void Compressor::declare_scratch(Book& book, int64_t max_tokens, bool train) {
  const RowCapacity rows{max_tokens, dims_.num_ranks};
  const int64_t history = rows.entry_history(dims_.rate), J = history + dims_.part.padded(max_tokens);
  const int64_t Z = dims_.Z();
  const int64_t E = rows.own_entries(dims_.rate), P = dims_.num_ranks * E;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, ape_.name + ":" + what, dtype, shape);
  };
  if (dims_.num_ranks > 1) declare(padded_PH_, "padded", dtypes_.act, {P, dims_.H});
  if (!train) return;
  book.declare(&dz_JZ_, dtypes_.operands, ape_.name + ":dz", dtypes_.act, {J, Z});
  book.declare(&dg_JZ_, dtypes_.operands, ape_.name + ":dg", dtypes_.act, {J, Z});
  declare(dv_EH_, "dv", dtypes_.acc, {E, dims_.H});
  if (dims_.num_ranks == 1) return;
  declare(dpadded_PH_, "dpadded", dtypes_.acc, {P, dims_.H});
  declare(from_next_HZ_, "from_next", dtypes_.act, {history, Z});
}

Compressor::Saved Compressor::first(const Saved& s, const DeviceLayout& layout) const {
  const DeviceEntries& entries = layout.entries(dims_.rate);
  const int64_t J = entries.history_R[layout.cut().rank] + layout.num_tokens(), E = entries.position_C.dim(0);
  return {s.z_JZ.first(J), s.g_JZ.first(J), s.v_EH.first(E), s.k_CH.first(entries.num_entries), s.v_rstd_E.first(E)};
}

void Compressor::project(Ctx& ctx, View z_TZ, View g_TZ, View h_TD) const {
  kv_.forward(ctx, z_TZ, h_TD);
  gate_.forward(ctx, g_TZ, h_TD);
}

void Compressor::make_entries(Ctx& ctx, const Saved& saved, const backend::CompressRanges& ranges, View position_E,
                              const RotaryTable& rotary) const {
  ctx.ops.compress_forward(ctx.stream, saved.v_EH, saved.z_JZ, saved.g_JZ, ape_.value, ranges);
  norm_.forward(ctx, saved.k_CH, saved.v_rstd_E, saved.v_EH);
  rope_rows(ctx, saved.k_CH, saved.k_CH, rotary, position_E, +1);
}

void Compressor::forward(Ctx& ctx, const Saved& saved, View h_PD, const DeviceLayout& layout,
                         const RotaryTable& rotary) const {
  const DeviceEntries& entries = layout.entries(dims_.rate);
  const int64_t J = saved.z_JZ.dim(0), T = layout.num_tokens(), begin = dims_.part.begin(T), end = dims_.part.end(T);
  const View z_TZ = saved.z_JZ.rows(J - T, J), g_TZ = saved.g_JZ.rows(J - T, J);
  project(ctx, z_TZ.rows(begin, end), g_TZ.rows(begin, end), h_PD);
  gather_in_place(ctx, dims_.part, z_TZ, "values of windows");
  gather_in_place(ctx, dims_.part, g_TZ, "gates of windows");
  if (layout.cut().size() == 1) return make_entries(ctx, saved, compress_ranges(entries), entries.position_C, rotary);
  receive_history(ctx, saved.z_JZ, layout.cut(), needed(entries), "rows of windows");
  receive_history(ctx, saved.g_JZ, layout.cut(), needed(entries), "rows of windows");
  const EntryExchange exchange(layout.cut(), entries.count_R, padded_PH_);
  Saved own = saved;
  own.k_CH = exchange.own();
  make_entries(ctx, own, compress_ranges(entries), entries.position_C, rotary);
  exchange.gather(ctx, saved.k_CH, "entries");
}

void Compressor::backward(Ctx& ctx, View dh_PD, View dk_CH, View h_PD, const Saved& saved, const DeviceLayout& layout,
                          const RotaryTable& rotary) const {
  const DeviceEntries& entries = layout.entries(dims_.rate);
  const int64_t J = saved.z_JZ.dim(0), T = layout.num_tokens();
  const View dz_JZ = dz_JZ_.first(J), dg_JZ = dg_JZ_.first(J), dv_EH = dv_EH_.first(saved.v_EH.dim(0));
  View dk_EH = dk_CH;
  if (layout.cut().size() > 1) {
    const EntryExchange exchange(layout.cut(), entries.count_R, dpadded_PH_);
    exchange.reduce(ctx, dk_CH, "gradients of entries");
    dk_EH = exchange.own();
  }
  rope_rows(ctx, dk_EH, dk_EH, rotary, entries.position_C, -1);
  norm_.backward(ctx, dv_EH, dk_EH, saved.v_EH, saved.v_rstd_E);
  ctx.ops.compress_backward(ctx.stream, dz_JZ, dg_JZ, ape_.grad, dv_EH, saved.z_JZ, saved.g_JZ, ape_.value,
                            compress_ranges(entries));
  return_history(ctx, dz_JZ, from_next_HZ_, layout.cut(), needed(entries), "gradients of windows");
  return_history(ctx, dg_JZ, from_next_HZ_, layout.cut(), needed(entries), "gradients of windows");
  const View dz_PZ = add_in_place(ctx, dims_.part, dz_JZ.rows(J - T, J), "gradients of windows");
  const View dg_PZ = add_in_place(ctx, dims_.part, dg_JZ.rows(J - T, J), "gradients of gates");
  kv_.backward_weight(ctx, dz_PZ, h_PD);
  gate_.backward_weight(ctx, dg_PZ, h_PD);
  if (!dh_PD.defined()) return;
  kv_.backward_input(ctx, dh_PD, dz_PZ, 1);
  gate_.backward_input(ctx, dh_PD, dg_PZ, 1);
}

}  // namespace temper::layers
