// Norms, rotation, gates, embedding and loss.
#include <algorithm>
#include <cmath>

#include "backend/cpu/reference.h"

namespace temper::backend {
namespace reference {
namespace {

template <class A>
void rmsnorm_forward(Out y_RD, Out rstd_R, In x_RD, In w_D, double eps) {
  const int64_t R = x_RD.dim(0), D = x_RD.dim(1);
  const auto x = load<A>(x_RD, {R, D});
  const auto w = load_or<A>(w_D, {D}, 1);
  Array<A> y({R, D}), rstd({R});
  for (int64_t r = 0; r < R; ++r) {
    A sum = 0;
    for (int64_t d = 0; d < D; ++d) sum += x(r, d) * x(r, d);
    rstd(r) = 1 / std::sqrt(sum / static_cast<A>(D) + static_cast<A>(eps));
    for (int64_t d = 0; d < D; ++d) y(r, d) = w(d) * x(r, d) * rstd(r);
  }
  store(y_RD, y);
  store(rstd_R, rstd);
}

template <class A>
void rmsnorm_backward(Out dx_RD, InOut dw_D, In dy_RD, In x_RD, In rstd_R, In w_D) {
  const int64_t R = x_RD.dim(0), D = x_RD.dim(1);
  CHECK(w_D.defined() || !dw_D.defined(), dw_D.to_string());
  const auto x = load<A>(x_RD, {R, D});
  const auto dy = load<A>(dy_RD, {R, D});
  const auto rstd = load<A>(rstd_R, {R});
  const auto w = load_or<A>(w_D, {D}, 1);
  Array<A> dx({R, D});
  auto dw = load_or<A>(dw_D, {D}, 0);
  for (int64_t r = 0; r < R; ++r) {
    A mean = 0;
    for (int64_t d = 0; d < D; ++d) mean += w(d) * dy(r, d) * x(r, d) * rstd(r) / static_cast<A>(D);
    for (int64_t d = 0; d < D; ++d) {
      const A xh = x(r, d) * rstd(r);
      dx(r, d) = rstd(r) * (w(d) * dy(r, d) - xh * mean);
      dw(d) += dy(r, d) * xh;
    }
  }
  store(dx_RD, dx);
  if (dw_D.defined()) store(dw_D, dw);
}

template <class A>
void rope(Out y_TNH, In x_TNH, In cos_sin_LP2, In position_T, double sign) {
  const int64_t T = x_TNH.dim(0), N = x_TNH.dim(1), H = x_TNH.dim(2);
  const int64_t L = cos_sin_LP2.dim(0), P = cos_sin_LP2.dim(1);
  CHECK(2 * P <= H && (sign == 1 || sign == -1), P, H, sign);
  const auto x = load<A>(x_TNH, {T, N, H});
  const auto cos_sin = load<A>(cos_sin_LP2, {L, P, 2});
  const auto position = load<int64_t>(position_T, {T});
  auto y = x;
  for (int64_t t = 0; t < T; ++t) {
    CHECK(position(t) >= 0 && position(t) < L, t, position(t), L);
    for (int64_t n = 0; n < N; ++n)
      for (int64_t p = 0; p < P; ++p) {
        const int64_t even = H - 2 * P + 2 * p, odd = even + 1;
        const A a = x(t, n, even), b = x(t, n, odd);
        const A c = cos_sin(position(t), p, 0), s = static_cast<A>(sign) * cos_sin(position(t), p, 1);
        y(t, n, even) = a * c - s * b;
        y(t, n, odd) = b * c + s * a;
      }
  }
  store(y_TNH, y);
}

template <class A>
void swiglu_forward(Out a_RF, In gu_RG, In w_R, double limit_in) {
  const int64_t R = a_RF.dim(0), F = a_RF.dim(1);
  const A limit = static_cast<A>(limit_in);
  const auto gu = load<A>(gu_RG, {R, 2 * F});
  const auto w = load_or<A>(w_R, {R}, 1);
  Array<A> a({R, F});
  for (int64_t r = 0; r < R; ++r)
    for (int64_t f = 0; f < F; ++f) {
      const A g = std::min(gu(r, f), limit), u = std::clamp(gu(r, F + f), -limit, limit);
      a(r, f) = w(r) * g * sigmoid(g) * u;
    }
  store(a_RF, a);
}

template <class A>
void swiglu_backward(Out dgu_RG, Out dw_R, Out a_RF, In da_RF, In gu_RG, In w_R, double limit_in) {
  const int64_t R = a_RF.dim(0), F = a_RF.dim(1);
  const A limit = static_cast<A>(limit_in);
  CHECK(w_R.defined() == dw_R.defined(), w_R.to_string(), dw_R.to_string());
  const auto gu = load<A>(gu_RG, {R, 2 * F});
  const auto da = load<A>(da_RF, {R, F});
  const auto w = load_or<A>(w_R, {R}, 1);
  Array<A> dgu({R, 2 * F}), dw({R}), a({R, F});
  for (int64_t r = 0; r < R; ++r)
    for (int64_t f = 0; f < F; ++f) {
      const A g0 = gu(r, f), u0 = gu(r, F + f);
      const A g = std::min(g0, limit), u = std::clamp(u0, -limit, limit);
      const A silu = g * sigmoid(g);
      a(r, f) = w(r) * silu * u;
      dw(r) += da(r, f) * silu * u;
      const A dg = w(r) * da(r, f) * u * sigmoid(g) * (1 + g * (1 - sigmoid(g)));
      const A du = w(r) * da(r, f) * silu;
      dgu(r, f) = g0 <= limit ? dg : 0;
      dgu(r, F + f) = -limit <= u0 && u0 <= limit ? du : 0;
    }
  store(dgu_RG, dgu);
  store(a_RF, a);
  if (dw_R.defined()) store(dw_R, dw);
}

template <class A>
void swiglu_clamp_counts(InOut count_3, In gu_RG, In index_R, double limit_in) {
  const int64_t R = gu_RG.dim(0), F = gu_RG.dim(1) / 2;
  const A limit = static_cast<A>(limit_in);
  const auto gu = load<A>(gu_RG, {R, 2 * F});
  const auto index = load_or<int64_t>(index_R, {R}, 0);
  auto count = load<int64_t>(count_3, {3});
  for (int64_t r = 0; r < R; ++r)
    for (int64_t f = 0; index(r) >= 0 && f < F; ++f) {
      count(0) += gu(r, f) > limit;
      count(1) += gu(r, F + f) > limit;
      count(2) += gu(r, F + f) < -limit;
    }
  store(count_3, count);
}

template <class A>
void embedding_forward(Out x_TMD, In table_VD, In token_T) {
  const int64_t T = x_TMD.dim(0), M = x_TMD.dim(1), D = x_TMD.dim(2), V = table_VD.dim(0);
  const auto token = load<int64_t>(token_T, {T});
  Array<A> x({T, M, D});
  for (int64_t t = 0; t < T; ++t) {
    CHECK(token(t) >= 0 && token(t) < V, t, token(t), V);
    const auto row = load<A>(table_VD.rows(token(t), token(t) + 1), {1, D});
    for (int64_t i = 0; i < M; ++i)
      for (int64_t d = 0; d < D; ++d) x(t, i, d) = row(d);
  }
  store(x_TMD, x);
}

template <class A>
void embedding_backward(InOut dtable_VD, In dx_TMD, In token_T) {
  const int64_t T = dx_TMD.dim(0), M = dx_TMD.dim(1), D = dx_TMD.dim(2), V = dtable_VD.dim(0);
  const auto token = load<int64_t>(token_T, {T});
  const auto dx = load<A>(dx_TMD, {T, M, D});
  for (int64_t t = 0; t < T; ++t) {
    CHECK(token(t) >= 0 && token(t) < V, t, token(t), V);
    const View row_D = dtable_VD.rows(token(t), token(t) + 1);
    auto row = load<A>(row_D, {1, D});
    for (int64_t i = 0; i < M; ++i)
      for (int64_t d = 0; d < D; ++d) row(d) += dx(t, i, d);
    store(row_D, row);
  }
}

template <class A>
void logprob_forward(Out logp_T, Out lse_T, Out best_T, In logits_TV, In target_T) {
  const int64_t T = logits_TV.dim(0), V = logits_TV.dim(1);
  const auto logits = load<A>(logits_TV, {T, V});
  const auto target = load<int64_t>(target_T, {T});
  Array<A> logp({T}), lse({T});
  Array<int64_t> best({T});
  for (int64_t t = 0; t < T; ++t) {
    CHECK(target(t) >= -1 && target(t) < V, t, target(t), V);
    for (int64_t v = 1; v < V; ++v)
      if (logits(t, v) > logits(t, best(t))) best(t) = v;
    const A largest = logits(t, best(t));
    A sum = 0;
    for (int64_t v = 0; v < V; ++v) sum += std::exp(logits(t, v) - largest);
    lse(t) = largest + std::log(sum);
    logp(t) = target(t) < 0 ? 0 : logits(t, target(t)) - lse(t);
  }
  store(logp_T, logp);
  store(lse_T, lse);
  if (best_T.defined()) store(best_T, best);
}

template <class A>
void logprob_backward(Out dlogits_TV, In logits_TV, In lse_T, In target_T, In g_T) {
  const int64_t T = logits_TV.dim(0), V = logits_TV.dim(1);
  const auto logits = load<A>(logits_TV, {T, V});
  const auto lse = load<A>(lse_T, {T}), g = load<A>(g_T, {T});
  const auto target = load<int64_t>(target_T, {T});
  Array<A> dlogits({T, V});
  for (int64_t t = 0; t < T; ++t)
    for (int64_t v = 0; v < V; ++v)
      dlogits(t, v) = g(t) * (static_cast<A>(v == target(t)) - std::exp(logits(t, v) - lse(t)));
  store(dlogits_TV, dlogits);
}

}  // namespace
}  // namespace reference

void register_reference_rows(OpTable& ops) {
  using namespace reference;
  TEMPER_REFERENCE(ops, rmsnorm_forward);
  TEMPER_REFERENCE(ops, rmsnorm_backward);
  TEMPER_REFERENCE(ops, rope);
  TEMPER_REFERENCE(ops, swiglu_forward);
  TEMPER_REFERENCE(ops, swiglu_backward);
  TEMPER_REFERENCE(ops, swiglu_clamp_counts);
  TEMPER_REFERENCE(ops, embedding_forward);
  TEMPER_REFERENCE(ops, embedding_backward);
  TEMPER_REFERENCE(ops, logprob_forward);
  TEMPER_REFERENCE(ops, logprob_backward);
}

}  // namespace temper::backend
