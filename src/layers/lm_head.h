// Output head (architecture page 8, 12.K): log-probabilities and their gradients by chunks of tokens. Logits never
// exist as a whole [T, V]; positions without a target cost nothing.
//
//   logit = Head y;  logp = logit_target - logsumexp(logit);  dlogit = dLoss/dlogp * (onehot(target) - softmax)
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
  };

  void declare_saved(Book& book, Saved& saved, const std::string& name, int64_t max_tokens) const;
  void declare_scratch(Book& book, bool train);

  // For the positions with targets[t] >= 0: logp_T[t] and best_T[t] (most likely token); 0 and -1 elsewhere.
  void logprobs(Ctx& ctx, View y_TD, std::span<const int32_t> targets, Saved& saved, std::vector<double>& logp_T,
                std::vector<int32_t>& best_T) const;
  // Of the same positions: accumulates the head's gradient and dy_TD (acc), which the caller has zeroed.
  void backward(Ctx& ctx, View dy_TD, View y_TD, std::span<const double> dlogp_T, const Saved& saved) const;
  // Rows [begin, end) of the logits.
  void logits(Ctx& ctx, View y_TD, int64_t begin, int64_t end, std::vector<double>& logits_TV) const;

 private:
  View chunk_logits(Ctx& ctx, View y_TD, View rows_C) const;

  int64_t V_, D_, chunk_;
  Dtypes dtypes_;
  Linear head_;
  View y_CD_, logits_CV_, dlogits_CV_, dy_CD_;  // scratch, of one chunk
};

}  // namespace temper::layers
