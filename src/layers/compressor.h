// Compressor of CSA and HCA layers, and of the lightning indexer (architecture page 5.2, 12.C): pools windows of `rate`
// tokens into entries.
//
//   z = Wkv h, g = Wgate h;   v = softmax-over-slots(g + ape) . z;   k = rope(RMS(v; norm), first position of the
//   window)
#pragma once

#include <string>

#include "layers/context_exchange.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/rotary.h"
#include "layers/tensor_part.h"
#include "layers/token_layout.h"

namespace temper::layers {

struct CompressorDims {
  int64_t D, H;      // hidden size, entry width
  int64_t rate;      // tokens per window
  bool overlapping;  // CSA: each entry also sees the previous window, projections are 2H wide
  double eps;
  int64_t num_ranks = 1;  // that have a document's rows among them (context_exchange.h)
  TensorPart part = {};   // of the rows that are projected; all ranks make all entries
  int64_t Z() const { return overlapping ? 2 * H : H; }
};

class Compressor {
 public:
  // J: rows of the history, then those of all tensor parallel ranks. E: entries that this rank makes, C: those of all
  // ranks.
  struct Saved {
    View z_JZ, g_JZ;  // acc
    View v_EH, k_CH;  // act: pooled, then normed and rotated
    View v_rstd_E;    // acc
  };

  // Names: prefix + kv_proj.weight, gate_proj.weight, position_bias, kv_norm.weight.
  Compressor(const std::string& prefix, CompressorDims dims, Dtypes dtypes);

  void collect(ParameterList& list);
  void declare_saved(Book& book, TensorKind kind, Saved& saved, int64_t max_tokens) const;
  void declare_scratch(Book& book, int64_t max_tokens, bool train);
  Saved first(const Saved& saved, const DeviceLayout& layout) const;

  // All of saved, from the own rows P.
  void forward(Ctx& ctx, const Saved& saved, View h_PD, const DeviceLayout& layout, const RotaryTable& rotary) const;
  // z and g of every token.
  void project(Ctx& ctx, View z_TZ, View g_TZ, View h_TD) const;
  // Entries from z and g: saved.v, v_rstd and k. position_E: rotary position of each entry.
  void make_entries(Ctx& ctx, const Saved& saved, const backend::CompressRanges& ranges, View position_E,
                    const RotaryTable& rotary) const;
  // Accumulates into the parameters and dh_PD (acc; undefined where the gradient stops at h). dk_CH (acc), this rank's
  // share of every entry's gradient, is destroyed.
  void backward(Ctx& ctx, View dh_PD, View dk_CH, View h_PD, const Saved& saved, const DeviceLayout& layout,
                const RotaryTable& rotary) const;

  const CompressorDims& dims() const { return dims_; }
  bool is_trained() const { return kv_.w.trainable || gate_.w.trainable || ape_.trainable || norm_.w.trainable; }

 private:
  CompressorDims dims_;
  Dtypes dtypes_;
  Linear kv_, gate_;
  Parameter ape_;  // [rate, Z]
  RmsNorm norm_;
  const History& needed(const DeviceEntries& entries) const {
    return dims_.overlapping ? entries.history_R : entries.current_history_R;
  }
  View dz_JZ_, dg_JZ_, dv_EH_;                  // scratch: act, act, acc
  View padded_PH_, dpadded_PH_, from_next_HZ_;  // scratch of several ranks: act, acc, act
};

inline backend::CompressRanges compress_ranges(const DeviceEntries& entries) {
  return {entries.row_C, entries.prev_row_C, entries.rate};
}

// Backward of gather_in_place: the own rows of all_RX, in their place, of which each becomes the sum over ranks; the
// others are undefined after it.
inline View add_in_place(Ctx& ctx, const TensorPart& part, View all_RX, const char* what) {
  const int64_t R = all_RX.dim(0), P = part.piece(R);
  if (part.is_cut()) {
    const View padded(all_RX.base, all_RX.dtype, {part.padded(R), all_RX.dim(1)}, all_RX.offset);
    add_pieces(ctx, part, padded.rows(part.rank * P, (part.rank + 1) * P), all_RX, what);
  }
  return all_RX.rows(part.begin(R), part.end(R));
}

// Rotates rows [R, H] as if they had one head.
inline void rope_rows(Ctx& ctx, View y_RH, View x_RH, const RotaryTable& rotary, View position_R, double sign) {
  const Shape heads{x_RH.dim(0), 1, x_RH.dim(1)};
  ctx.ops.rope(ctx.stream, y_RH.reshape(heads), x_RH.reshape(heads), rotary.cos_sin_LP2, position_R, sign);
}

}  // namespace temper::layers
