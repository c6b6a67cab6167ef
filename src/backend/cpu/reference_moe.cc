// Mixture of experts (architecture page 6.1, 6.3 and 12.E): choice, weights, balance, dispatch plan and combination.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/cpu/reference.h"

namespace temper::backend {
namespace reference {
namespace {

// s(z) = sqrt(softplus(z)); above 20 softplus is the identity, as in the released model.
template <class A>
A router_score(A z) {
  return std::sqrt(z > 20 ? z : std::log1p(std::exp(z)));
}

// ds/dz = sigmoid(z) / (2 s), which tends to s / 2 where z -> -inf and both factors underflow. At z = -40 the two
// differ by 3e-18 relative.
template <class A>
A router_score_slope(A z) {
  if (z < -40) return std::exp(z / 2) / 2;
  const A sigma = z > 20 ? A{1} : sigmoid(z);
  return sigma / (2 * router_score(z));
}

template <class A>
void router_topk(Out index_TK, In z_TE, In bias_E) {
  const int64_t T = index_TK.dim(0), K = index_TK.dim(1), E = z_TE.dim(1);
  CHECK(K <= E, K, E);
  const auto z = load<A>(z_TE, {T, E}), bias = load<A>(bias_E, {E});
  Array<int64_t> index({T, K});
  for (int64_t t = 0; t < T; ++t) {
    std::vector<A> score(static_cast<size_t>(E));
    for (int64_t e = 0; e < E; ++e) score[e] = router_score(z(t, e)) + bias(e);
    std::vector<int64_t> order(static_cast<size_t>(E));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return score[a] > score[b]; });
    std::sort(order.begin(), order.begin() + K);
    for (int64_t k = 0; k < K; ++k) index(t, k) = order[k];
  }
  store(index_TK, index);
}

template <class A>
void router_hash(Out index_TK, In table_VK, In token_T) {
  const int64_t T = index_TK.dim(0), K = index_TK.dim(1), V = table_VK.dim(0);
  const auto table = load<int64_t>(table_VK, {V, K}), token = load<int64_t>(token_T, {T});
  Array<int64_t> index({T, K});
  for (int64_t t = 0; t < T; ++t) {
    CHECK(token(t) >= 0 && token(t) < V, t, token(t), V);
    for (int64_t k = 0; k < K; ++k) index(t, k) = table(token(t), k);
  }
  store(index_TK, index);
}

template <class A>
void override_rows(InOut index_TK, In given_TK) {
  const int64_t T = index_TK.dim(0), K = index_TK.dim(1);
  auto index = load<int64_t>(index_TK, {T, K});
  const auto given = load<int64_t>(given_TK, {T, K});
  for (int64_t t = 0; t < T; ++t)
    for (int64_t k = 0; k < K && given(t, 0) >= 0; ++k) index(t, k) = given(t, k);
  store(index_TK, index);
}

// Sum of the scores of the chosen experts of a token, plus 1e-20 against 0/0.
template <class A>
A chosen_sum(const Array<A>& z, const Array<int64_t>& index, int64_t t) {
  A sum = static_cast<A>(1e-20);
  for (int64_t k = 0; k < index.dim(1); ++k) {
    CHECK(index(t, k) >= 0 && index(t, k) < z.dim(1), t, k, index(t, k), z.dim(1));
    sum += router_score(z(t, index(t, k)));
  }
  return sum;
}

template <class A>
void router_weights_forward(Out weight_TK, In z_TE, In index_TK, double scaling) {
  const int64_t T = index_TK.dim(0), K = index_TK.dim(1), E = z_TE.dim(1);
  const auto z = load<A>(z_TE, {T, E});
  const auto index = load<int64_t>(index_TK, {T, K});
  Array<A> weight({T, K});
  for (int64_t t = 0; t < T; ++t) {
    const A sum = chosen_sum(z, index, t);
    for (int64_t k = 0; k < K; ++k) weight(t, k) = static_cast<A>(scaling) * router_score(z(t, index(t, k))) / sum;
  }
  store(weight_TK, weight);
}

// Adds the gradient of balance * L to dz; returns L, these tokens' part of the balance loss of a sequence of N tokens
// that made so many choices in all.
template <class A>
A balance_backward(Array<A>& dz, const Array<A>& z, const Array<int64_t>& count, int64_t num_choices, A N, A balance) {
  const int64_t T = z.dim(0), E = z.dim(1);
  Array<A> F({E});
  for (int64_t e = 0; e < E; ++e) F(e) = static_cast<A>(E * count(e)) / static_cast<A>(num_choices);
  A loss = 0;
  for (int64_t t = 0; t < T; ++t) {
    A sum = static_cast<A>(1e-20), dot = 0;
    for (int64_t e = 0; e < E; ++e) sum += router_score(z(t, e));
    for (int64_t e = 0; e < E; ++e) dot += F(e) * router_score(z(t, e)) / sum;
    loss += dot / N;
    for (int64_t e = 0; e < E; ++e) dz(t, e) += balance / N * (F(e) - dot) / sum * router_score_slope(z(t, e));
  }
  return loss;
}

template <class A>
void router_weights_backward(Out dz_TE, In dweight_TK, In weight_TK, In z_TE, In index_TK, double scaling,
                             InOut balance_1, double balance, In load_E, int64_t num_tokens) {
  const int64_t T = index_TK.dim(0), K = index_TK.dim(1), E = z_TE.dim(1);
  const auto z = load<A>(z_TE, {T, E}), weight = load<A>(weight_TK, {T, K}), dweight = load<A>(dweight_TK, {T, K});
  const auto index = load<int64_t>(index_TK, {T, K});
  Array<A> dz({T, E});
  for (int64_t t = 0; t < T; ++t) {
    const A sum = chosen_sum(z, index, t);
    A dot = 0;
    for (int64_t k = 0; k < K; ++k) dot += dweight(t, k) * weight(t, k);
    for (int64_t k = 0; k < K; ++k) {
      const A ds = (static_cast<A>(scaling) * dweight(t, k) - dot) / sum;
      dz(t, index(t, k)) += ds * router_score_slope(z(t, index(t, k)));
    }
  }
  if (balance > 0 && T > 0) {
    CHECK(num_tokens >= T, num_tokens, T);
    const A loss = balance_backward(dz, z, load<int64_t>(load_E, {E}), K * num_tokens, static_cast<A>(num_tokens),
                                    static_cast<A>(balance));
    if (balance_1.defined()) {
      auto total = load<A>(balance_1, {1});
      total(0) += loss;
      store(balance_1, total);
    }
  }
  store(dz_TE, dz);
}

template <class A>
void router_entropy(InOut entropy_1, In z_TE) {
  const int64_t T = z_TE.dim(0), E = z_TE.dim(1);
  const auto z = load<A>(z_TE, {T, E});
  auto total = load<A>(entropy_1, {1});
  for (int64_t t = 0; t < T; ++t) {
    A sum = 0;
    for (int64_t e = 0; e < E; ++e) sum += router_score(z(t, e));
    for (int64_t e = 0; e < E; ++e) {
      const A p = router_score(z(t, e)) / sum;
      if (p > 0) total(0) -= p * std::log(p);
    }
  }
  store(entropy_1, total);
}

template <class A>
void expert_load(InOut load_E, In index_TK) {
  const int64_t E = load_E.dim(0), T = index_TK.dim(0), K = index_TK.dim(1);
  auto total = load<int64_t>(load_E, {E});
  const auto index = load<int64_t>(index_TK, {T, K});
  for (int64_t i = 0; i < index.size(); ++i) {
    CHECK(index.data()[i] >= 0 && index.data()[i] < E, i, index.data()[i], E);
    ++total(index.data()[i]);
  }
  store(load_E, total);
}

template <class A>
void router_bias_update(InOut bias_E, In load_E, double speed) {
  const int64_t E = bias_E.dim(0);
  auto bias = load<A>(bias_E, {E});
  const auto count = load<int64_t>(load_E, {E});
  const int64_t total = std::accumulate(count.data(), count.data() + E, int64_t{0});
  const double mean = static_cast<double>(total) / static_cast<double>(E);
  for (int64_t e = 0; e < E; ++e) {
    const double missing = mean - static_cast<double>(count(e));
    bias(e) += static_cast<A>(speed) * static_cast<A>((missing > 0) - (missing < 0));
  }
  store(bias_E, bias);
}

template <class A>
void dispatch_plan(Out offset_E1, Out row_token_R, Out row_slot_R, Out slot_row_TK, In index_TK, int64_t alignment) {
  const int64_t T = index_TK.dim(0), K = index_TK.dim(1), E = offset_E1.dim(0) - 1, R = row_slot_R.dim(0);
  CHECK(alignment >= 1 && R >= T * K + E * (alignment - 1), R, T, K, E, alignment);
  const auto index = load<int64_t>(index_TK, {T, K});
  Array<int64_t> offset({E + 1}), row_token({R}, -1), row_slot({R}, -1), slot_row({T, K}, -1);
  int64_t row = 0;
  for (int64_t e = 0; e < E; ++e) {
    offset(e) = row;
    for (int64_t slot = 0; slot < T * K; ++slot) {
      if (index(slot) != e) continue;
      row_token(row) = slot / K;
      row_slot(row) = slot;
      slot_row(slot) = row++;
    }
    row = (row + alignment - 1) / alignment * alignment;
  }
  offset(E) = row;
  for (int64_t slot = 0; slot < T * K; ++slot) CHECK(slot_row(slot) >= 0, slot, index(slot), E);
  store(offset_E1, offset);
  store(row_token_R, row_token);
  store(row_slot_R, row_slot);
  store(slot_row_TK, slot_row);
}

template <class A>
void combine(Out y_TD, In x_RD, In slot_row_TK, In base_TD) {
  const int64_t T = y_TD.dim(0), D = y_TD.dim(1), R = x_RD.dim(0), K = slot_row_TK.dim(1);
  const auto x = load<A>(x_RD, {R, D});
  const auto slot_row = load<int64_t>(slot_row_TK, {T, K});
  auto y = load_or<A>(base_TD, {T, D}, 0);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t k = 0; k < K; ++k) {
      CHECK(slot_row(t, k) >= 0 && slot_row(t, k) < R, t, k, slot_row(t, k), R);
      for (int64_t d = 0; d < D; ++d) y(t, d) += x(slot_row(t, k), d);
    }
  store(y_TD, y);
}

}  // namespace
}  // namespace reference

void register_reference_moe(OpTable& ops) {
  using namespace reference;
  TEMPER_REFERENCE(ops, router_topk);
  TEMPER_REFERENCE(ops, router_hash);
  TEMPER_REFERENCE(ops, override_rows);
  TEMPER_REFERENCE(ops, router_weights_forward);
  TEMPER_REFERENCE(ops, router_weights_backward);
  TEMPER_REFERENCE(ops, router_entropy);
  TEMPER_REFERENCE(ops, expert_load);
  TEMPER_REFERENCE(ops, router_bias_update);
  TEMPER_REFERENCE(ops, dispatch_plan);
  TEMPER_REFERENCE(ops, combine);
}

}  // namespace temper::backend
