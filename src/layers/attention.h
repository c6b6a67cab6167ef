// Attention of DeepSeek-V4 (architecture page 5, 12.D, 12.I): low-rank queries, one shared latent that is key and
// value, a sliding window, compressed entries (CSA, HCA), a sink per head, inverse rotation, grouped output projection.
//
//   r = RMS(Wqa h);  q = rope(RMS-per-head(Wqb r));  c = rope(RMS(Wkv h))
//   o = attention(q; c in the window, entries k, sink);  y = Wob . concat_g(Woa_g . unrope(o)_g)
//
// Tensor parallel (post-training 4.4): a rank has N / size heads with their output groups. What all heads share of a
// row (r, c, the projections that entries are made from) is computed by the row's owner and gathered; what the heads of
// each rank add to its gradient goes back to the owner, as a sum. What a rank's groups make of every row goes to the
// row's owner, so that Wob, whole on every rank, sees each row once, and a row's sum over groups is that of one rank.
#pragma once

#include <memory>
#include <string>

#include "layers/compressor.h"
#include "layers/indexer.h"

namespace temper::layers {

struct AttentionDims {
  int64_t D, N, H, Q, G, O;  // hidden, heads, head dim, query rank, output groups, output rank per group
  int64_t rate = 0;          // 0: sliding window only
  bool csa = false;          // overlapping windows and an indexer
  IndexerDims indexer{};     // used when csa
  double eps = 1e-6;
  // Ranks that have a document's rows among them (context_exchange.h); the sliding window, read where they are several.
  int64_t num_ranks = 1, window = 0;
  TensorPart part = {};  // of heads and output groups
};

// Which of the visible entries a CSA layer attends to.
enum class EntryUse : uint8_t {
  kBest,   // all where no token sees more than index_topk of them, else the chosen ones
  kGiven,  // the chosen ones, which came from outside at least in part
  kAll,    // every one (warm-up of the indexer): nothing is chosen
};

class Attention {
 public:
  struct Saved {
    View r_TQ, qb_TNH, q_TNH, o_TNH;  // act
    View qa_PQ, kv_PH, y1_PW;         // act; W = G * O of all ranks
    View c_JH, c_TH;                  // act: keys of the history's rows, then of all T; these alone, set by first()
    View qa_rstd_P, q_rstd_R, kv_rstd_P, lse_TN;  // acc; R = T * N
    Compressor::Saved entries;
  };

  // dims: of all ranks.
  Attention(const std::string& prefix, const AttentionDims& dims, Dtypes dtypes);

  void collect(ParameterList& list);
  void declare_saved(Book& book, Saved& saved, int64_t max_tokens) const;
  void declare_scratch(Book& book, int64_t max_tokens, int64_t num_threads, bool train);

  // y = attention(h), both of this rank's rows P. T: those of all ranks of the tensor parallel group. selected_TA
  // (CSA): chosen by the indexer or read, as the rule says; neither written nor read where all visible entries are
  // used.
  void forward(Ctx& ctx, View y_PD, View h_PD, const Saved& saved, View selected_TA, const ChoiceRule& rule,
               EntryUse use, const DeviceLayout& layout, const RotaryTable& rotary) const;
  // dh_PD (acc) is overwritten; parameters' gradients accumulate.
  void backward(Ctx& ctx, View dh_PD, View dy_PD, View h_PD, const Saved& saved, View selected_TA, EntryUse use,
                const DeviceLayout& layout, const RotaryTable& rotary) const;
  // After forward, CSA only: Indexer::backward with this layer's attention as the teacher, unless the indexer is frozen.
  // loss_1 (acc) += the sum over tokens; the gradient of coefficient * sum goes to the indexer's parameters only.
  void backward_indexer(Ctx& ctx, View loss_1, View h_PD, const Saved& saved, View selected_TA, EntryUse use,
                        double coefficient, const DeviceLayout& layout, const RotaryTable& rotary) const;

  // The parts of forward, used by the decoder with its cache. position_T: of the rows of all ranks.
  void project(Ctx& ctx, const Saved& saved, View h_PD, View position_T, const RotaryTable& rotary) const;
  void attend(Ctx& ctx, const Saved& saved, View c_JH, View k_CH, const backend::KeyRanges& ranges) const;
  void output(Ctx& ctx, View y_PD, const Saved& saved, View position_T, const RotaryTable& rotary) const;

  // Whether a pass over this layout attends to chosen entries only (CSA), so that they must be computed or given.
  bool is_choosing(const DeviceLayout& layout, EntryUse use) const;
  // What of it a layout needs; what so many tokens need, without entries or history.
  Saved first(const Saved& saved, const DeviceLayout& layout) const;
  Saved first(const Saved& saved, int64_t T) const;
  const AttentionDims& dims() const { return dims_; }  // N and G: of this rank
  const Compressor* compressor() const { return compressor_.get(); }
  const Indexer* indexer() const { return indexer_.get(); }
  Indexer* indexer() { return indexer_.get(); }

 private:
  View own(View x_TX) const { return x_TX.rows(dims_.part.begin(x_TX.dim(0)), dims_.part.end(x_TX.dim(0))); }
  Indexer::Teacher teacher(Ctx& ctx, const Saved& saved, View selected_TA, EntryUse use,
                           const DeviceLayout& layout) const;
  backend::KeyRanges ranges(const DeviceLayout& layout, View selected_TA, EntryUse use) const;
  View grouped(View x_TX) const;  // [T, G * X] -> [G, T, X], strided
  double scale() const;
  int64_t num_history(int64_t max_tokens) const;

  AttentionDims dims_;
  Dtypes dtypes_;
  Parameter sinks_;
  Linear q_a_, q_b_, kv_, o_a_, o_b_;
  RmsNorm q_a_norm_, kv_norm_;
  std::unique_ptr<Compressor> compressor_;
  std::unique_ptr<Indexer> indexer_;
  struct Scratch {
    View ou_TNH, do_TNH, dq_TNH, dy1_TW, dqa_PQ, dkv_PH;  // act
    View dr_TQ, dc_JH, from_next_HH, dk_CH, workspace;    // acc
    // Of several ranks. N: all rows, with padding.
    View y1_TW, exchange_NW, dy1_PW;  // act
    View q_PNH, q_exchange_NX;        // act: queries of all heads
    View lse_PN, lse_exchange_NX;     // acc
  } scratch_;
};

}  // namespace temper::layers
