// Output head (architecture page 8, 12.K): log-probabilities and their gradients by chunks of tokens. Logits never
// exist as a whole [T, V]; positions without a target cost nothing.
//
//   logit = Head y;  logp = logit_target - logsumexp(logit);  dlogit = dLoss/dlogp * (onehot(target) - softmax)
//
// Backward follows a chunk's forward at once where dLoss/dlogp is known beforehand; else it computes the logits again.
//
// Vocabulary parallel: the rows of all ranks come together, a rank has the logits of its words, and the ranks exchange
// per token the logsumexp, the largest logit and the target's (post-training 2.1). dy is a sum over ranks, which goes
// to the rows' owners.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "layers/linear.h"
#include "layers/tensor_part.h"

namespace temper::layers {

class LmHead {
 public:
  // chunk: tokens whose logits exist at once. part: of the vocabulary.
  LmHead(int64_t V, int64_t D, int64_t chunk, Dtypes dtypes, TensorPart part = {});

  void collect(ParameterList& list) { list.push_back(&head_.w); }
  // One use of the head: the positions with a target, R <= T of them, and what backward needs.
  struct Saved {
    std::vector<int32_t> rows;
    View rows_R, target_R, best_R;  // i32; target: -1 where it is another rank's word
    View logp_R, lse_R, g_R;        // acc
    bool backward_is_done = false;  // by logprobs
  };
  // dLoss/dlogp where it does not depend on the log-probabilities, and where to put the gradient of y (acc), of this
  // rank's rows.
  struct Known {
    std::span<const double> dlogp_T;  // of all rows; empty: not known
    View dy_PD;
  };

  void declare_saved(Book& book, Saved& saved, const std::string& name, int64_t max_tokens) const;
  void declare_scratch(Book& book, int64_t max_tokens, bool train);

  // T: all rows of the ranks that share the vocabulary, which get the same results; P: this rank's.
  // For the positions with targets[t] >= 0: logp_T[t] and best_T[t] (most likely token); 0 and -1 elsewhere. With known
  // gradients also all that backward does.
  void logprobs(Ctx& ctx, View y_PD, std::span<const int32_t> targets, Saved& saved, std::vector<double>& logp_T,
                std::vector<int32_t>& best_T, const Known& known = {}) const;
  // Of the same positions: accumulates the head's gradient and overwrites dy_PD (acc). Nothing if logprobs did that.
  void backward(Ctx& ctx, View dy_PD, View y_PD, std::span<const double> dlogp_T, const Saved& saved) const;
  // Rows [begin, end) of the logits; of one rank with the whole vocabulary.
  void logits(Ctx& ctx, View y_TD, int64_t begin, int64_t end, std::vector<double>& logits_TV) const;

 private:
  // The rows with a target, and their targets among this rank's words.
  void choose_rows(Ctx& ctx, std::span<const int32_t> targets, Saved& saved) const;
  View all_rows(Ctx& ctx, View y_PD, int64_t T) const;
  // Rows [begin, end) of those with a target.
  View chunk_logits(Ctx& ctx, View y_TD, const Saved& saved, int64_t begin, int64_t end) const;
  void join_vocabulary(Ctx& ctx, View logits_CV, const Saved& saved, int64_t begin, int64_t end) const;
  // Returns the gradient of all rows, to be filled by chunks.
  View begin_backward(Ctx& ctx, View dy_PD, std::span<const double> dlogp_T, const Saved& saved) const;
  // Right after chunk_logits of the same rows.
  void backward_chunk(Ctx& ctx, View dy_TD, View logits_CV, const Saved& saved, int64_t begin, int64_t end) const;
  void end_backward(Ctx& ctx, View dy_PD, View dy_TD) const;

  int64_t V_, D_, chunk_;  // V: of this rank
  Dtypes dtypes_;
  TensorPart part_;
  Linear head_;
  View y_CD_, logits_CV_, dlogits_CV_, dy_CD_;  // scratch, of one chunk
  // Scratch among several ranks: all rows (act, acc); the logits to be exchanged, and what all ranks have of them.
  View y_TD_, dy_TD_;
  struct Exchange {
    View index_X, best_SC;  // i32; X = 2C
    View mine_3C, all_S3C;  // acc
  } exchange_;
};

}  // namespace temper::layers
