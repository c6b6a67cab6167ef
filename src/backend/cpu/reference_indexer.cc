// Lightning indexer (architecture page 5.3, 5.9, 12.J): selection of entries, and the loss that teaches it.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/cpu/reference.h"

namespace temper::backend {
namespace reference {
namespace {

// I_w = scale * sum_s w_ts max(0, <q_ts, k_w>) of query t and entry row `row`.
template <class A>
A index_score(const Array<A>& q, const Array<A>& k, const Array<A>& w, int64_t t, int64_t row, A scale) {
  A score = 0;
  for (int64_t s = 0; s < q.dim(1); ++s) {
    A dot = 0;
    for (int64_t p = 0; p < q.dim(2); ++p) dot += q(t, s, p) * k(row, p);
    score += w(t, s) * std::max<A>(0, dot);
  }
  return scale * score;
}

template <class A>
void index_topk(Out selected_TA, In q_TIP, In k_CP, In w_TI, In entry_begin_T, In entry_count_T, double scale) {
  const int64_t T = q_TIP.dim(0), I = q_TIP.dim(1), P = q_TIP.dim(2), C = k_CP.dim(0), most = selected_TA.dim(1);
  const auto q = load<A>(q_TIP, {T, I, P}), k = load<A>(k_CP, {C, P}), w = load<A>(w_TI, {T, I});
  const auto begin = load<int64_t>(entry_begin_T, {T}), count = load<int64_t>(entry_count_T, {T});
  Array<int64_t> selected({T, most}, -1);
  for (int64_t t = 0; t < T; ++t) {
    CHECK(count(t) == 0 || (begin(t) >= 0 && begin(t) + count(t) <= C), t, begin(t), count(t), C);
    std::vector<A> score(static_cast<size_t>(count(t)));
    for (int64_t e = 0; e < count(t) && count(t) > most; ++e)
      score[e] = index_score(q, k, w, t, begin(t) + e, static_cast<A>(scale));
    std::vector<int64_t> order(score.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return score[a] > score[b]; });
    order.resize(std::min<size_t>(order.size(), static_cast<size_t>(most)));
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < order.size(); ++i) selected(t, static_cast<int64_t>(i)) = order[i];
  }
  store(selected_TA, selected);
}

// The rows of k among which each query chooses: all visible ones, or those that were selected.
class Entries {
 public:
  Entries(const KeyRanges& ranges, int64_t T, int64_t C)
      : C_(C),
        begin_(load<int64_t>(ranges.entry_begin_T, {T})),
        count_(load<int64_t>(ranges.entry_count_T, {T})),
        all_(!ranges.selected_TA.defined()),
        selected_(load_or<int64_t>(ranges.selected_TA, {T, all_ ? 0 : ranges.selected_TA.dim(1)}, -1)) {}

  std::vector<int64_t> rows(int64_t t) const {
    CHECK(count_(t) == 0 || (begin_(t) >= 0 && begin_(t) + count_(t) <= C_), t, begin_(t), count_(t), C_);
    std::vector<int64_t> out;
    for (int64_t e = 0; all_ && e < count_(t); ++e) out.push_back(begin_(t) + e);
    for (int64_t i = 0; i < selected_.dim(1); ++i) {
      if (selected_(t, i) == -1) continue;
      CHECK(selected_(t, i) >= 0 && selected_(t, i) < count_(t), t, selected_(t, i), count_(t));
      out.push_back(begin_(t) + selected_(t, i));
    }
    return out;
  }

 private:
  int64_t C_;
  Array<int64_t> begin_, count_;
  bool all_;
  Array<int64_t> selected_;
};

// pi_w = P_w / sum P, P_w = sum_n exp(scale <q_tn, k_w> - lse_tn). What all exponents share cancels, and is taken out
// where that loses no digits: the first head's lse, then the largest exponent.
template <class A>
std::vector<A> teacher(const Array<A>& q, const Array<A>& k, const Array<A>& lse, int64_t t,
                       const std::vector<int64_t>& rows, A scale) {
  const int64_t N = q.dim(1), H = q.dim(2);
  std::vector<A> exponent;
  for (const int64_t row : rows)
    for (int64_t n = 0; n < N; ++n) {
      A dot = 0;
      for (int64_t h = 0; h < H; ++h) dot += q(t, n, h) * k(row, h);
      exponent.push_back(scale * dot - (lse(t, n) - lse(t, 0)));
    }
  const A largest = *std::max_element(exponent.begin(), exponent.end());
  std::vector<A> pi(rows.size(), 0);
  for (size_t i = 0; i < exponent.size(); ++i) pi[i / static_cast<size_t>(N)] += std::exp(exponent[i] - largest);
  const A sum = std::accumulate(pi.begin(), pi.end(), A{0});
  for (A& value : pi) value /= sum;
  return pi;
}

template <class A>
std::vector<A> log_softmax(const std::vector<A>& x) {
  const A largest = *std::max_element(x.begin(), x.end());
  A sum = 0;
  for (const A value : x) sum += std::exp(value - largest);
  std::vector<A> out;
  out.reserve(x.size());
  for (const A value : x) out.push_back(value - largest - std::log(sum));
  return out;
}

template <class A>
void indexer_loss(InOut loss_1, Out dq_TIP, Out dk_CP, Out dw_TI, In q_TIP, In k_CP, In w_TI, In q_TNH, In k_CH,
                  In lse_TN, KeyRanges ranges, double attention_scale, double index_scale, double coefficient,
                  Out /*workspace*/) {
  const int64_t T = q_TIP.dim(0), I = q_TIP.dim(1), P = q_TIP.dim(2), C = k_CP.dim(0);
  const int64_t N = q_TNH.dim(1), H = q_TNH.dim(2);
  const auto q = load<A>(q_TIP, {T, I, P}), k = load<A>(k_CP, {C, P}), w = load<A>(w_TI, {T, I});
  const auto query = load<A>(q_TNH, {T, N, H}), key = load<A>(k_CH, {C, H}), lse = load<A>(lse_TN, {T, N});
  const A scale = static_cast<A>(index_scale);
  const Entries entries(ranges, T, C);
  Array<A> dq({T, I, P}), dk({C, P}), dw({T, I});
  auto loss = load<A>(loss_1, {1});
  for (int64_t t = 0; t < T; ++t) {
    const auto rows = entries.rows(t);
    if (rows.empty()) continue;
    const auto pi = teacher(query, key, lse, t, rows, static_cast<A>(attention_scale));
    std::vector<A> score;
    score.reserve(rows.size());
    for (const int64_t row : rows) score.push_back(index_score(q, k, w, t, row, scale));
    const auto log_rho = log_softmax(score);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (pi[i] > 0) loss(0) += pi[i] * (std::log(pi[i]) - log_rho[i]);
      const A dscore = static_cast<A>(coefficient) * (std::exp(log_rho[i]) - pi[i]);
      for (int64_t s = 0; s < I; ++s) {
        A dot = 0;
        for (int64_t p = 0; p < P; ++p) dot += q(t, s, p) * k(rows[i], p);
        if (dot <= 0) continue;
        dw(t, s) += dscore * scale * dot;
        for (int64_t p = 0; p < P; ++p) {
          dq(t, s, p) += dscore * scale * w(t, s) * k(rows[i], p);
          dk(rows[i], p) += dscore * scale * w(t, s) * q(t, s, p);
        }
      }
    }
  }
  store(loss_1, loss);
  store(dq_TIP, dq);
  store(dk_CP, dk);
  store(dw_TI, dw);
}

}  // namespace
}  // namespace reference

void register_reference_indexer(OpTable& ops) {
  using namespace reference;
  TEMPER_REFERENCE(ops, index_topk);
  TEMPER_REFERENCE(ops, indexer_loss);
}

}  // namespace temper::backend
