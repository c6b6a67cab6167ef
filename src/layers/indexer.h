// Lightning indexer of CSA layers (architecture page 5.3): chooses, for each query, the entries that attention reads.
//
//   I[t, w] = I^-1/2 P^-1/2 * sum_s wI_ts max(0, <qI_ts, kI_w>)        the A largest visible entries are selected
//
// The choice has no gradient from the language loss; a loss of its own teaches it to follow the attention (5.9, 12.J):
//
//   P_t[w] = sum over heads of the attention's probability;  pi = P / sum P;  rho = softmax(I) over the same entries
//   loss_t = KL(pi || rho)            with h, r and the attention taken as constants
//
// Tensor parallel (post-training 4.4): a rank projects its own rows P, makes the keys from those of all, and scores the
// queries of its rows. What they choose is gathered, what they teach is a part of each gradient.
#pragma once

#include <string>

#include "layers/compressor.h"
#include "layers/tensor_part.h"

namespace temper::layers {

struct IndexerDims {
  int64_t D, Q, I, P, A;  // hidden, query rank, indexer heads, their width, index_topk
  int64_t rate;
  double eps;
  int64_t num_ranks = 1;  // that have a document's rows among them (context_exchange.h)
  TensorPart part = {};   // of the queries
};

class Indexer {
 public:
  Indexer(const std::string& prefix, IndexerDims dims, Dtypes dtypes);
  void collect(ParameterList& list);
  void declare_scratch(Book& book, int64_t max_tokens, int64_t num_threads, bool train);

  // Writes selected_TA, in memory for part.padded(T) rows, from the own rows of h and r.
  void select(Ctx& ctx, View selected_TA, View h_PD, View r_PQ, const DeviceLayout& layout,
              const RotaryTable& rotary) const;

  // The attention that the indexer is to follow, of the queries of this rank's rows and all heads: queries, entries,
  // logsumexp and what each query reads.
  struct Teacher {
    View q_PNH, k_CH, lse_PN;
    backend::KeyRanges ranges;
    double scale;
  };
  // loss_1 (acc) += sum over this rank's tokens of loss_t; accumulates the gradient of coefficient * that sum in the
  // indexer's parameters, and stops at h and r. Queries and keys are computed again from h_PD and r_PQ.
  void backward(Ctx& ctx, View loss_1, View h_PD, View r_PQ, const Teacher& teacher, double coefficient,
                const DeviceLayout& layout, const RotaryTable& rotary) const;

  // Pieces of it for decoding, where keys come from a cache. q_TIP and w_TI are written.
  void queries(Ctx& ctx, View q_TIP, View w_TI, View h_TD, View r_TQ, View position_T, const RotaryTable& rotary) const;
  void choose(Ctx& ctx, View selected_TA, View q_TIP, View w_TI, View k_CP, View entry_begin_T,
              View entry_count_T) const;
  bool is_trained() const;  // whether any of its parameters is trainable
  const Compressor& compressor() const { return compressor_; }
  const IndexerDims& dims() const { return dims_; }

 private:
  IndexerDims dims_;
  Dtypes dtypes_;
  Linear q_b_, weights_;
  Compressor compressor_;
  Compressor::Saved entries_;  // scratch: nothing of it is needed by backward
  View q_TIP_, w_TI_;          // scratch: act, acc
  struct Gradients {
    View q_TIP, w_act_TI;        // act
    View k_CP, w_TI, workspace;  // acc
  } d_;                          // scratch
  double scale() const;
};

}  // namespace temper::layers
