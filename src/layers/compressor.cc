#include "layers/compressor.h"

namespace temper::layers {

Compressor::Saved Compressor::Saved::first(int64_t T, int64_t C) const {
  return {z_TZ.first(T), g_TZ.first(T), v_CH.first(C), k_CH.first(C), v_rstd_C.first(C)};
}

Compressor::Compressor(const std::string& prefix, CompressorDims dims, Dtypes dtypes)
    : dims_(dims),
      dtypes_(dtypes),
      kv_{matrix(prefix + "kv_proj.weight", {dims.Z(), dims.D}, dtypes)},
      gate_{matrix(prefix + "gate_proj.weight", {dims.Z(), dims.D}, dtypes)},
      ape_(fine_parameter(prefix + "position_bias", {dims.rate, dims.Z()}, dtypes, Init::kZeros)),
      norm_{fine_parameter(prefix + "kv_norm.weight", {dims.H}, dtypes, Init::kOnes), dims.eps} {}

void Compressor::collect(ParameterList& list) { list.insert(list.end(), {&kv_.w, &gate_.w, &ape_, &norm_.w}); }

void Compressor::declare_saved(Book& book, TensorKind kind, Saved& saved, int64_t max_tokens) const {
  const int64_t T = max_tokens, C = max_tokens / dims_.rate;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, kind, ape_.name + ":" + what, dtype, shape);
  };
  declare(saved.z_TZ, "z", dtypes_.acc, {T, dims_.Z()});
  declare(saved.g_TZ, "g", dtypes_.acc, {T, dims_.Z()});
  declare(saved.v_CH, "v", dtypes_.act, {C, dims_.H});
  declare(saved.k_CH, "k", dtypes_.act, {C, dims_.H});
  declare(saved.v_rstd_C, "v_rstd", dtypes_.acc, {C});
}

void Compressor::declare_scratch(Book& book, int64_t max_tokens) {
  const int64_t T = max_tokens, C = max_tokens / dims_.rate;
  book.declare(&dz_TZ_, dtypes_.operands, ape_.name + ":dz", dtypes_.act, {T, dims_.Z()});
  book.declare(&dg_TZ_, dtypes_.operands, ape_.name + ":dg", dtypes_.act, {T, dims_.Z()});
  book.declare(&dv_CH_, TensorKind::kScratch, ape_.name + ":dv", dtypes_.acc, {C, dims_.H});
}

void Compressor::project(Ctx& ctx, View z_TZ, View g_TZ, View h_TD) const {
  kv_.forward(ctx, z_TZ, h_TD);
  gate_.forward(ctx, g_TZ, h_TD);
}

void Compressor::make_entries(Ctx& ctx, const Saved& saved, const backend::CompressRanges& ranges, View position_C,
                              const RotaryTable& rotary) const {
  ctx.ops.compress_forward(ctx.stream, saved.v_CH, saved.z_TZ, saved.g_TZ, ape_.value, ranges);
  norm_.forward(ctx, saved.k_CH, saved.v_rstd_C, saved.v_CH);
  rope_rows(ctx, saved.k_CH, saved.k_CH, rotary, position_C, +1);
}

void Compressor::backward(Ctx& ctx, View dh_TD, View dk_CH, View h_TD, const Saved& saved, const DeviceEntries& entries,
                          const RotaryTable& rotary) const {
  const View dz_TZ = dz_TZ_.first(h_TD.dim(0)), dg_TZ = dg_TZ_.first(h_TD.dim(0)), dv_CH = dv_CH_.first(dk_CH.dim(0));
  rope_rows(ctx, dk_CH, dk_CH, rotary, entries.position_C, -1);
  norm_.backward(ctx, dv_CH, dk_CH, saved.v_CH, saved.v_rstd_C);
  ctx.ops.compress_backward(ctx.stream, dz_TZ, dg_TZ, ape_.grad, dv_CH, saved.z_TZ, saved.g_TZ, ape_.value,
                            compress_ranges(entries));
  kv_.backward_weight(ctx, dz_TZ, h_TD);
  gate_.backward_weight(ctx, dg_TZ, h_TD);
  if (!dh_TD.defined()) return;
  kv_.backward_input(ctx, dh_TD, dz_TZ, 1);
  gate_.backward_input(ctx, dh_TD, dg_TZ, 1);
}

}  // namespace temper::layers
