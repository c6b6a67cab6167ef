// Compressor of CSA and HCA layers, and of the lightning indexer (architecture page 5.2, 12.C): pools windows of `rate`
// tokens into entries.
//
//   z = Wkv h, g = Wgate h;   v = softmax-over-slots(g + ape) . z;   k = rope(RMS(v; norm), first position of the
//   window)
#pragma once

#include <string>

#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/rotary.h"
#include "layers/token_layout.h"

namespace temper::layers {

struct CompressorDims {
  int64_t D, H;      // hidden size, entry width
  int64_t rate;      // tokens per window
  bool overlapping;  // CSA: each entry also sees the previous window, projections are 2H wide
  double eps;
  int64_t Z() const { return overlapping ? 2 * H : H; }
};

class Compressor {
 public:
  struct Saved {
    View z_TZ, g_TZ;  // acc
    View v_CH, k_CH;  // act: pooled, then normed and rotated
    View v_rstd_C;    // acc
    Saved first(int64_t T, int64_t C) const;
  };

  // Names: prefix + kv_proj.weight, gate_proj.weight, position_bias, kv_norm.weight.
  Compressor(const std::string& prefix, CompressorDims dims, Dtypes dtypes);

  void collect(ParameterList& list);
  void declare_saved(Book& book, TensorKind kind, Saved& saved, int64_t max_tokens) const;
  void declare_scratch(Book& book, int64_t max_tokens);

  // z and g of every token.
  void project(Ctx& ctx, View z_TZ, View g_TZ, View h_TD) const;
  // Entries from z and g: saved.v, v_rstd and k. position_C: rotary position of each entry.
  void make_entries(Ctx& ctx, const Saved& saved, const backend::CompressRanges& ranges, View position_C,
                    const RotaryTable& rotary) const;
  // Accumulates into the parameters and dh_TD (acc; undefined where the gradient stops at h). dk_CH (acc) is destroyed.
  void backward(Ctx& ctx, View dh_TD, View dk_CH, View h_TD, const Saved& saved, const DeviceEntries& entries,
                const RotaryTable& rotary) const;

  const CompressorDims& dims() const { return dims_; }
  bool is_trained() const { return kv_.w.trainable || gate_.w.trainable || ape_.trainable || norm_.w.trainable; }

 private:
  CompressorDims dims_;
  Dtypes dtypes_;
  Linear kv_, gate_;
  Parameter ape_;  // [rate, Z]
  RmsNorm norm_;
  View dz_TZ_, dg_TZ_, dv_CH_;  // scratch: act, act, acc
};

inline backend::CompressRanges compress_ranges(const DeviceEntries& entries) {
  return {entries.row_C, entries.prev_row_C, entries.rate};
}

// Rotates rows [R, H] as if they had one head.
inline void rope_rows(Ctx& ctx, View y_RH, View x_RH, const RotaryTable& rotary, View position_R, double sign) {
  const Shape heads{x_RH.dim(0), 1, x_RH.dim(1)};
  ctx.ops.rope(ctx.stream, y_RH.reshape(heads), x_RH.reshape(heads), rotary.cos_sin_LP2, position_R, sign);
}

}  // namespace temper::layers
