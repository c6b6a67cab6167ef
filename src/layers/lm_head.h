// Output head (architecture page 8, 12.K): log-probabilities and their gradients by chunks of tokens. Logits never
// exist as a whole [T, V]; positions without a target cost nothing.
//
//   logit = Head y;  logp = logit_target - logsumexp(logit);  dlogit = dLoss/dlogp * (onehot(target) - softmax)
//
// Backward follows a chunk's forward at once where dLoss/dlogp is known beforehand; else it computes the logits again.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "layers/linear.h"

namespace temper::layers {

class LmHead {
 public:
  // chunk: tokens whose logits exist at once.
  LmHead(int64_t V, int64_t D, int64_t chunk, Dtypes dtypes);

  void collect(ParameterList& list) { list.push_back(&head_.w); }
  // One use of the head: the positions with a target, R <= T of them, and what backward needs.
  struct Saved {
    std::vector<int32_t> rows;
    View rows_R, target_R, best_R;  // i32
    View logp_R, lse_R, g_R;        // acc
    bool backward_is_done = false;  // by logprobs
  };
  // dLoss/dlogp where it does not depend on the log-probabilities, and where to put the gradient of y (acc).
  struct Known {
    std::span<const double> dlogp_T;  // empty: not known
    View dy_TD;
  };

  void declare_saved(Book& book, Saved& saved, const std::string& name, int64_t max_tokens) const;
  void declare_scratch(Book& book, bool train);

  // For the positions with targets[t] >= 0: logp_T[t] and best_T[t] (most likely token); 0 and -1 elsewhere. With known
  // gradients also all that backward does.
  void logprobs(Ctx& ctx, View y_TD, std::span<const int32_t> targets, Saved& saved, std::vector<double>& logp_T,
                std::vector<int32_t>& best_T, const Known& known = {}) const;
  // Of the same positions: accumulates the head's gradient and overwrites dy_TD (acc). Nothing if logprobs did that.
  void backward(Ctx& ctx, View dy_TD, View y_TD, std::span<const double> dlogp_T, const Saved& saved) const;
  // Rows [begin, end) of the logits.
  void logits(Ctx& ctx, View y_TD, int64_t begin, int64_t end, std::vector<double>& logits_TV) const;

 private:
  // Rows [begin, end) of those with a target.
  View chunk_logits(Ctx& ctx, View y_TD, const Saved& saved, int64_t begin, int64_t end) const;
  void begin_backward(Ctx& ctx, View dy_TD, std::span<const double> dlogp_T, const Saved& saved) const;
  // Right after chunk_logits of the same rows.
  void backward_chunk(Ctx& ctx, View dy_TD, View logits_CV, const Saved& saved, int64_t begin, int64_t end) const;

  int64_t V_, D_, chunk_;
  Dtypes dtypes_;
  Linear head_;
  View y_CD_, logits_CV_, dlogits_CV_, dy_CD_;  // scratch, of one chunk
};

}  // namespace temper::layers
