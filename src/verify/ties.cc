#include "verify/ties.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace temper::verify {
namespace {

constexpr double kRounding = 1e-5;

// Whether two rows of choices (-1: none) take entries of one score but for rounding.
bool is_tie(const int32_t* got, const int32_t* want, int64_t count, const std::vector<double>& scores) {
  std::vector<int32_t> a(got, got + count), b(want, want + count), lost, gained;
  std::sort(a.begin(), a.end()), std::sort(b.begin(), b.end());
  std::set_difference(b.begin(), b.end(), a.begin(), a.end(), std::back_inserter(lost));
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(gained));
  if (lost.size() != gained.size()) return false;
  double largest = 0;
  for (const double score : scores) largest = std::max(largest, std::abs(score));
  const auto known = [&](int32_t i) { return i >= 0 && i < static_cast<int32_t>(scores.size()); };
  for (const int32_t i : lost)
    for (const int32_t j : gained)
      if (!known(i) || !known(j) || !(std::abs(scores[i] - scores[j]) <= kRounding * largest)) return false;
  return std::is_sorted(got, std::find(got, got + count, -1));  // the order is part of the contract
}

void excuse(int64_t& num_ties, OpError& error, const View& want, const View& got,
            const std::function<std::vector<double>(int64_t row)>& scores) {
  const int64_t T = got.dim(0), count = got.dim(1);
  int64_t excused = 0;
  for (int64_t t = 0; t < T; ++t) {
    const int32_t *a = got.data<int32_t>() + t * count, *b = want.data<int32_t>() + t * count;
    if (std::equal(a, a + count, b)) continue;
    if (!is_tie(a, b, count, scores(t))) {
      error.row = t;
      return;
    }
    ++excused;
  }
  num_ties += excused;
  error.error = 0;
}

}  // namespace

void excuse_ties(OpTag<OpId::router_topk>, int64_t& num_ties, OpError& error, const Out& want_TK, const Out& got_TK,
                 const In& z_TE, const In& bias_E) {
  const auto bias = to_doubles(bias_E);
  excuse(num_ties, error, want_TK, got_TK, [&](int64_t t) {
    auto scores = to_doubles(z_TE.rows(t, t + 1));
    for (size_t e = 0; e < scores.size(); ++e)
      scores[e] = std::sqrt(scores[e] > 20 ? scores[e] : std::log1p(std::exp(scores[e]))) + bias[e];
    return scores;
  });
}

void excuse_ties(OpTag<OpId::index_topk>, int64_t& num_ties, OpError& error, const Out& want_TA, const Out& got_TA,
                 const In& q_TIP, const In& k_CP, const In& w_TI, const In& entry_begin_T, const In& entry_count_T,
                 const double& scale) {
  const int64_t I = q_TIP.dim(1), P = q_TIP.dim(2);
  excuse(num_ties, error, want_TA, got_TA, [&](int64_t t) {
    const int64_t begin = entry_begin_T.data<int32_t>()[t], count = entry_count_T.data<int32_t>()[t];
    const auto q = to_doubles(q_TIP.rows(t, t + 1)), w = to_doubles(w_TI.rows(t, t + 1));
    const auto k = to_doubles(k_CP.rows(begin, begin + count));
    std::vector<double> scores(static_cast<size_t>(count));
    for (int64_t e = 0; e < count; ++e)
      for (int64_t s = 0; s < I; ++s) {
        double dot = 0;
        for (int64_t p = 0; p < P; ++p) dot += q[s * P + p] * k[e * P + p];
        scores[e] += scale * w[s] * std::max(0.0, dot);
      }
    return scores;
  });
}

}  // namespace temper::verify
