// Hyper-connections (architecture page 3 and 12.A): coefficients with Sinkhorn normalisation, mixing, and their
// backward.
#include <algorithm>
#include <cmath>

#include "backend/cpu/reference.h"

namespace temper::backend {
namespace reference {
namespace {

enum class Axis { kRow, kColumn };  // entries of a row share j, entries of a column share k

// One normalisation of an M x M matrix: every entry divided by (sum of its row or column + eps).
template <class A>
struct SinkhornStep {
  Axis axis;
  Array<A> out;      // after the step
  Array<A> divisor;  // [M]: sum + eps of each row or column
};

template <class A>
SinkhornStep<A> normalise(const Array<A>& c, Axis axis, A eps) {
  const int64_t M = c.dim(0);
  SinkhornStep<A> step{axis, Array<A>({M, M}), Array<A>({M}, eps)};
  for (int64_t j = 0; j < M; ++j)
    for (int64_t k = 0; k < M; ++k) step.divisor(axis == Axis::kRow ? j : k) += c(j, k);
  for (int64_t j = 0; j < M; ++j)
    for (int64_t k = 0; k < M; ++k) step.out(j, k) = c(j, k) / step.divisor(axis == Axis::kRow ? j : k);
  return step;
}

// The comb matrix of one token with all its intermediate steps.
template <class A>
struct Sinkhorn {
  Array<A> softmax;                    // [M, M], softmax over k of the logits, before eps
  std::vector<SinkhornStep<A>> steps;  // column, then (iters - 1) x (row, column)
};

template <class A>
Sinkhorn<A> sinkhorn(const Array<A>& logits, int64_t iters, A eps) {
  const int64_t M = logits.dim(0);
  CHECK(iters >= 1, iters);
  Sinkhorn<A> out{Array<A>({M, M}), {}};
  Array<A> c({M, M});
  for (int64_t j = 0; j < M; ++j) {
    A largest = logits(j, 0), sum = 0;
    for (int64_t k = 1; k < M; ++k) largest = std::max(largest, logits(j, k));
    for (int64_t k = 0; k < M; ++k) sum += std::exp(logits(j, k) - largest);
    for (int64_t k = 0; k < M; ++k) {
      out.softmax(j, k) = std::exp(logits(j, k) - largest) / sum;
      c(j, k) = out.softmax(j, k) + eps;
    }
  }
  out.steps.push_back(normalise(c, Axis::kColumn, eps));
  for (int64_t i = 1; i < iters; ++i) {
    out.steps.push_back(normalise(out.steps.back().out, Axis::kRow, eps));
    out.steps.push_back(normalise(out.steps.back().out, Axis::kColumn, eps));
  }
  return out;
}

// Gradient of the comb logits from that of comb. A step Y = X / (S + eps):  dX = (dY - sum over its axis of dY * Y) /
// (S + eps).
template <class A>
Array<A> sinkhorn_backward(const Sinkhorn<A>& forward, Array<A> dc) {
  const int64_t M = dc.dim(0);
  for (auto step = forward.steps.rbegin(); step != forward.steps.rend(); ++step) {
    const auto line = [&](int64_t j, int64_t k) { return step->axis == Axis::kRow ? j : k; };
    Array<A> dot({M});
    for (int64_t j = 0; j < M; ++j)
      for (int64_t k = 0; k < M; ++k) dot(line(j, k)) += dc(j, k) * step->out(j, k);
    for (int64_t j = 0; j < M; ++j)
      for (int64_t k = 0; k < M; ++k) dc(j, k) = (dc(j, k) - dot(line(j, k))) / step->divisor(line(j, k));
  }
  Array<A> dlogits({M, M});
  for (int64_t j = 0; j < M; ++j) {
    A dot = 0;
    for (int64_t k = 0; k < M; ++k) dot += dc(j, k) * forward.softmax(j, k);
    for (int64_t k = 0; k < M; ++k) dlogits(j, k) = forward.softmax(j, k) * (dc(j, k) - dot);
  }
  return dlogits;
}

// Row y of fn makes coefficient y: pre [0, M), post [M, 2M), comb [2M, (2+M)M) in row-major (j, k). scale has one value
// a group.
struct Groups {
  int64_t M, Y, G;
  bool head() const { return G == 1; }
  int64_t group(int64_t y) const { return std::min<int64_t>(y / M, 2); }
};

Groups groups_of(In x_TMD, In fn_YB, In scale_G) {
  const Groups groups{x_TMD.dim(1), fn_YB.dim(0), scale_G.dim(0)};
  CHECK((groups.G == 1 && groups.Y == groups.M) || (groups.G == 3 && groups.Y == (2 + groups.M) * groups.M), groups.G,
        groups.Y, groups.M);
  return groups;
}

// Logits of one token's comb matrix.
template <class A>
Array<A> comb_logits(const Array<A>& mix, const Array<A>& base, const Array<A>& scale, int64_t t, int64_t M) {
  Array<A> logits({M, M});
  for (int64_t i = 0; i < M * M; ++i) logits(i) = scale(2) * mix(t, 2 * M + i) + base(2 * M + i);
  return logits;
}

template <class A>
void hc_pre_forward(Out u_TD, Out post_TM, Out comb_TMM, Out mix_TY, Out rstd_T, In x_TMD, In fn_YB, In base_Y,
                    In scale_G, int64_t sinkhorn_iters, double rms_eps, double hc_eps) {
  const int64_t T = x_TMD.dim(0), D = x_TMD.dim(2);
  const auto [M, Y, G] = groups_of(x_TMD, fn_YB, scale_G);
  const int64_t B = M * D;
  const bool head = G == 1;
  CHECK(post_TM.defined() == !head && comb_TMM.defined() == !head, post_TM.to_string(), comb_TMM.to_string());
  const auto x = load<A>(x_TMD, {T, M, D});
  const auto fn = load<A>(fn_YB, {Y, B}), base = load<A>(base_Y, {Y}), scale = load<A>(scale_G, {G});
  const A eps = static_cast<A>(hc_eps);
  Array<A> u({T, D}), post({T, M}), comb({T, M, M}), mix({T, Y}), rstd({T});
  for (int64_t t = 0; t < T; ++t) {
    const A* x_B = x.data() + t * B;
    A sum = 0;
    for (int64_t b = 0; b < B; ++b) sum += x_B[b] * x_B[b];
    rstd(t) = 1 / std::sqrt(sum / static_cast<A>(B) + static_cast<A>(rms_eps));
    for (int64_t y = 0; y < Y; ++y)
      for (int64_t b = 0; b < B; ++b) mix(t, y) += fn(y, b) * (x_B[b] * rstd(t));
    for (int64_t i = 0; i < M; ++i) {
      const A pre = sigmoid(scale(0) * mix(t, i) + base(i)) + eps;
      for (int64_t d = 0; d < D; ++d) u(t, d) += pre * x(t, i, d);
    }
    if (head) continue;
    for (int64_t k = 0; k < M; ++k) post(t, k) = 2 * sigmoid(scale(1) * mix(t, M + k) + base(M + k));
    const auto history = sinkhorn(comb_logits(mix, base, scale, t, M), sinkhorn_iters, eps);
    for (int64_t j = 0; j < M; ++j)
      for (int64_t k = 0; k < M; ++k) comb(t, j, k) = history.steps.back().out(j, k);
  }
  store(u_TD, u);
  store(mix_TY, mix);
  store(rstd_T, rstd);
  if (head) return;
  store(post_TM, post);
  store(comb_TMM, comb);
}

// Gradient of the logits scale * mix + base of all coefficients of all tokens, [T, Y].
template <class A>
Array<A> coefficient_logits_backward(const Array<A>& dpre, In dpost_TM, In dcomb_TMM, const Array<A>& mix,
                                     const Array<A>& base, const Array<A>& scale, const Groups& groups,
                                     int64_t sinkhorn_iters, A eps) {
  const int64_t T = mix.dim(0), M = groups.M;
  const auto dpost = load_or<A>(dpost_TM, {T, M}, 0);
  const auto dcomb = load_or<A>(dcomb_TMM, {T, M, M}, 0);
  Array<A> de({T, groups.Y});
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t i = 0; i < M; ++i) {
      const A s = sigmoid(scale(0) * mix(t, i) + base(i));
      de(t, i) = dpre(t, i) * s * (1 - s);
    }
    if (groups.head()) continue;
    for (int64_t k = 0; k < M; ++k) {
      const A s = sigmoid(scale(1) * mix(t, M + k) + base(M + k));
      de(t, M + k) = dpost(t, k) * 2 * s * (1 - s);
    }
    Array<A> dc({M, M});
    for (int64_t j = 0; j < M; ++j)
      for (int64_t k = 0; k < M; ++k) dc(j, k) = dcomb(t, j, k);
    const auto dz = sinkhorn_backward(sinkhorn(comb_logits(mix, base, scale, t, M), sinkhorn_iters, eps), dc);
    for (int64_t i = 0; i < M * M; ++i) de(t, 2 * M + i) = dz(i);
  }
  return de;
}

template <class A>
void hc_pre_backward(InOut dx_TMD, InOut dfn_YB, InOut dbase_Y, InOut dscale_G, In du_TD, In dpost_TM, In dcomb_TMM,
                     In x_TMD, In mix_TY, In rstd_T, In fn_YB, In base_Y, In scale_G, int64_t sinkhorn_iters,
                     double hc_eps) {
  const int64_t T = x_TMD.dim(0), D = x_TMD.dim(2);
  const Groups groups = groups_of(x_TMD, fn_YB, scale_G);
  const int64_t M = groups.M, Y = groups.Y, G = groups.G, B = M * D;
  CHECK(dpost_TM.defined() == !groups.head() && dcomb_TMM.defined() == !groups.head(), dpost_TM.to_string());
  const auto x = load<A>(x_TMD, {T, M, D}), du = load<A>(du_TD, {T, D});
  const auto mix = load<A>(mix_TY, {T, Y}), rstd = load<A>(rstd_T, {T});
  const auto fn = load<A>(fn_YB, {Y, B}), base = load<A>(base_Y, {Y}), scale = load<A>(scale_G, {G});
  const bool trained = dfn_YB.defined();
  CHECK(dbase_Y.defined() == trained && dscale_G.defined() == trained, dbase_Y.to_string(), dscale_G.to_string());
  auto dx = load<A>(dx_TMD, {T, M, D}), dfn = load_or<A>(dfn_YB, {Y, B}, 0);
  auto dbase = load_or<A>(dbase_Y, {Y}, 0), dscale = load_or<A>(dscale_G, {G}, 0);
  const A eps = static_cast<A>(hc_eps);
  Array<A> dpre({T, M});
  for (int64_t t = 0; t < T; ++t)
    for (int64_t i = 0; i < M; ++i) {
      const A pre = sigmoid(scale(0) * mix(t, i) + base(i)) + eps;
      for (int64_t d = 0; d < D; ++d) {
        dpre(t, i) += du(t, d) * x(t, i, d);
        dx(t, i, d) += pre * du(t, d);
      }
    }
  const auto de = coefficient_logits_backward(dpre, dpost_TM, dcomb_TMM, mix, base, scale, groups, sinkhorn_iters, eps);
  for (int64_t t = 0; t < T; ++t) {
    Array<A> xh({B}), dxh({B});
    for (int64_t b = 0; b < B; ++b) xh(b) = x.data()[t * B + b] * rstd(t);
    for (int64_t y = 0; y < Y; ++y) {
      dbase(y) += de(t, y);
      dscale(groups.group(y)) += de(t, y) * mix(t, y);
      const A dmix = scale(groups.group(y)) * de(t, y);
      for (int64_t b = 0; b < B; ++b) {
        dfn(y, b) += dmix * xh(b);
        dxh(b) += fn(y, b) * dmix;
      }
    }
    A mean = 0;
    for (int64_t b = 0; b < B; ++b) mean += dxh(b) * xh(b) / static_cast<A>(B);
    for (int64_t b = 0; b < B; ++b) dx.data()[t * B + b] += rstd(t) * (dxh(b) - xh(b) * mean);
  }
  store(dx_TMD, dx);
  if (!trained) return;
  store(dfn_YB, dfn);
  store(dbase_Y, dbase);
  store(dscale_G, dscale);
}

template <class A>
void hc_post_forward(Out xo_TMD, In x_TMD, In y_TD, In post_TM, In comb_TMM) {
  const int64_t T = x_TMD.dim(0), M = x_TMD.dim(1), D = x_TMD.dim(2);
  const auto x = load<A>(x_TMD, {T, M, D}), y = load<A>(y_TD, {T, D});
  const auto post = load<A>(post_TM, {T, M}), comb = load<A>(comb_TMM, {T, M, M});
  Array<A> xo({T, M, D});
  for (int64_t t = 0; t < T; ++t)
    for (int64_t k = 0; k < M; ++k) {
      for (int64_t d = 0; d < D; ++d) xo(t, k, d) = post(t, k) * y(t, d);
      for (int64_t j = 0; j < M; ++j)
        for (int64_t d = 0; d < D; ++d) xo(t, k, d) += comb(t, j, k) * x(t, j, d);
    }
  store(xo_TMD, xo);
}

template <class A>
void hc_post_backward(Out dy_TD, Out dx_TMD, Out dpost_TM, Out dcomb_TMM, In dxo_TMD, In x_TMD, In y_TD, In post_TM,
                      In comb_TMM) {
  const int64_t T = x_TMD.dim(0), M = x_TMD.dim(1), D = x_TMD.dim(2);
  const auto dxo = load<A>(dxo_TMD, {T, M, D}), x = load<A>(x_TMD, {T, M, D}), y = load<A>(y_TD, {T, D});
  const auto post = load<A>(post_TM, {T, M}), comb = load<A>(comb_TMM, {T, M, M});
  Array<A> dy({T, D}), dx({T, M, D}), dpost({T, M}), dcomb({T, M, M});
  for (int64_t t = 0; t < T; ++t)
    for (int64_t k = 0; k < M; ++k)
      for (int64_t d = 0; d < D; ++d) {
        dy(t, d) += post(t, k) * dxo(t, k, d);
        dpost(t, k) += dxo(t, k, d) * y(t, d);
        for (int64_t j = 0; j < M; ++j) {
          dcomb(t, j, k) += x(t, j, d) * dxo(t, k, d);
          dx(t, j, d) += comb(t, j, k) * dxo(t, k, d);
        }
      }
  store(dy_TD, dy);
  store(dx_TMD, dx);
  store(dpost_TM, dpost);
  store(dcomb_TMM, dcomb);
}

}  // namespace
}  // namespace reference

void register_reference_hyper(OpTable& ops) {
  using namespace reference;
  TEMPER_REFERENCE(ops, hc_pre_forward);
  TEMPER_REFERENCE(ops, hc_pre_backward);
  TEMPER_REFERENCE(ops, hc_post_forward);
  TEMPER_REFERENCE(ops, hc_post_backward);
}

}  // namespace temper::backend
