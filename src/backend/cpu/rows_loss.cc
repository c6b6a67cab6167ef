// Log-probabilities of the target tokens and their gradient.
#include <cmath>

#include "backend/cpu/rows.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

void logprob_forward(Stream* stream, Out logp_T, Out lse_T, Out best_T, In logits_TV, In target_T) {
  if (any_f64(logp_T, lse_T, logits_TV)) {
    return cpu_reference().ops.logprob_forward(stream, logp_T, lse_T, best_T, logits_TV, target_T);
  }
  const int64_t T = logits_TV.dim(0), V = logits_TV.dim(1);
  CHECK(logp_T.size() == T && lse_T.size() == T && target_T.size() == T && V > 0, logp_T.to_string(), T, V);
  const float* logits = floats(logits_TV);
  float *logp = floats(logp_T), *lse = floats(lse_T);
  int32_t* best = best_T.defined() ? best_T.data<int32_t>() : nullptr;
  const int32_t* target = target_T.data<int32_t>();
  parallel_for(T, row_grain(4 * V), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      CHECK(target[t] >= -1 && target[t] < V, t, target[t], V);
      int64_t best_v = 0;
      lse[t] = row_kernels().log_sum_exp(logits + t * V, V, &best_v);
      logp[t] = target[t] < 0 ? 0.0F : logits[t * V + target[t]] - lse[t];
      if (best != nullptr) best[t] = static_cast<int32_t>(best_v);
    }
  });
}

void logprob_backward(Stream* stream, Out dlogits_TV, In logits_TV, In lse_T, In target_T, In g_T) {
  if (any_f64(dlogits_TV, logits_TV, lse_T, g_T)) {
    return cpu_reference().ops.logprob_backward(stream, dlogits_TV, logits_TV, lse_T, target_T, g_T);
  }
  const int64_t T = logits_TV.dim(0), V = logits_TV.dim(1);
  CHECK(dlogits_TV.shape == logits_TV.shape && lse_T.size() == T && target_T.size() == T && g_T.size() == T,
        dlogits_TV.to_string(), T, V);
  const Reals dlogits = reals(dlogits_TV);
  const float *logits = floats(logits_TV), *lse = floats(lse_T), *g = floats(g_T);
  const int32_t* target = target_T.data<int32_t>();
  parallel_for(T, row_grain(4 * V), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      CHECK(target[t] >= -1 && target[t] < V, t, target[t], V);
      // The target's own element is set afterwards, from its logit, which dlogits may overwrite.
      float of_target = target[t] < 0 ? 0.0F : logits[t * V + target[t]];
      row_kernels().softmax_backward(dlogits.at(t * V), logits + t * V, lse[t], g[t], V);
      if (target[t] < 0) continue;
      of_target = g[t] * (1.0F - std::exp(of_target - lse[t]));
      row_kernels().copy(dlogits.at(t * V + target[t]), {&of_target, false}, 1);
    }
  });
}

}  // namespace

void register_loss_rows(OpTable& ops) {
  ops.logprob_forward = logprob_forward;
  ops.logprob_backward = logprob_backward;
}

}  // namespace temper::backend
