#include <cmath>

#include "backend/op_case.h"

namespace temper::backend::test {
namespace {

std::vector<double> integers(OpCase& c, int64_t count, int64_t below, int64_t minus_every = 0) {
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i)
    out.push_back(
        minus_every && i % minus_every == minus_every - 1 ? -1 : std::floor(c.uniform() * static_cast<double>(below)));
  return out;
}

std::vector<double> positives(OpCase& c, int64_t count) {
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<float>(0.5 + c.uniform()));
  return out;
}

void add_rmsnorm(std::vector<OpCase>& cases, int64_t R, int64_t D, bool weighted, int64_t gap, Kind dy_kind,
                 Kind dx_kind) {
  const std::string label = fmt::format("{} x {}{}, gap {}", R, D, weighted ? ", weighted" : "", gap);
  const Window window = [=](const View& v) { return v.slice(1, gap, gap + D); };
  {
    OpCase c(OpId::rmsnorm_forward, label);
    const int y = c.out("y", Kind::kAct, {R, D}), rstd = c.out("rstd", Kind::kAcc, {R});
    const int x = c.in("x", Kind::kAct, {R, D + gap}, 2, window), w = c.in("w", Kind::kAcc, {D}, 1);
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
      ops.rmsnorm_forward(s, v[y], v[rstd], v[x], weighted ? v[w] : View(), 1e-6);
    };
    cases.push_back(c);
  }
  OpCase c(OpId::rmsnorm_backward, label);
  const int dx = c.out("dx", dx_kind, {R, D}), dw = c.inout("dw", Kind::kAcc, {D}, 1),
            dy = c.in("dy", dy_kind, {R, D}, 1);
  const int x = c.in("x", Kind::kAct, {R, D + gap}, 1, window), rstd = c.in("rstd", Kind::kAcc, {R}, positives(c, R));
  const int w = c.in("w", Kind::kAcc, {D}, 1);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.rmsnorm_backward(s, v[dx], weighted ? v[dw] : View(), v[dy], v[x], v[rstd], weighted ? v[w] : View());
  };
  cases.push_back(c);
}

// dx may alias dy.
void add_rmsnorm_in_place(std::vector<OpCase>& cases, int64_t R, int64_t D) {
  OpCase c(OpId::rmsnorm_backward, "in place");
  const int d = c.inout("dx = dy", Kind::kAcc, {R, D}, 1), dw = c.inout("dw", Kind::kAcc, {D}, 1);
  const int x = c.in("x", Kind::kAct, {R, D}, 1), rstd = c.in("rstd", Kind::kAcc, {R}, positives(c, R));
  const int w = c.in("w", Kind::kAcc, {D}, 1);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.rmsnorm_backward(s, v[d], v[dw], v[d], v[x], v[rstd], v[w]);
  };
  cases.push_back(c);
}

void add_rope(std::vector<OpCase>& cases, int64_t T, int64_t N, int64_t H, int64_t P, double sign, Kind to, Kind from,
              bool in_place) {
  OpCase c(OpId::rope,
           fmt::format("{} x {} x {}, {} pairs, sign {}{}", T, N, H, P, sign, in_place ? ", in place" : ""));
  const int64_t L = T + 3;
  std::vector<double> table;
  for (int64_t i = 0; i < L * P; ++i) {
    const double angle = 6 * c.uniform();
    table.push_back(static_cast<float>(std::cos(angle)));
    table.push_back(static_cast<float>(std::sin(angle)));
  }
  const int y = in_place ? c.inout("y = x", to, {T, N, H}, 1) : c.out("y", to, {T, N, H});
  const int x = in_place ? y : c.in("x", from, {T, N, H}, 1);
  const int cos_sin = c.in("cos_sin", Kind::kAcc, {L, P, 2}, table),
            position = c.in("position", Kind::kI32, {T}, integers(c, T, L));
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.rope(s, v[y], v[x], v[cos_sin], v[position], sign);
  };
  cases.push_back(c);
}

void add_swiglu(std::vector<OpCase>& cases, int64_t R, int64_t F, bool weighted, double limit) {
  const std::string label = fmt::format("{} x {}{}, limit {}", R, F, weighted ? ", weighted" : "", limit);
  // Every seventh value is exactly at a bound, where gradients pass.
  const auto gate_up = [=](OpCase& c) {
    auto values = c.draw(Kind::kAct, R * 2 * F, 2);
    for (size_t i = 0; i < values.size(); i += 7) values[i] = i % 2 ? limit : -limit;
    return values;
  };
  {
    OpCase c(OpId::swiglu_forward, label);
    const int a = c.out("a", Kind::kAct, {R, F}), gu = c.in("gu", Kind::kAct, {R, 2 * F}, gate_up(c));
    const int w = c.in("w", Kind::kAcc, {R}, 1);
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
      ops.swiglu_forward(s, v[a], v[gu], weighted ? v[w] : View(), limit);
    };
    cases.push_back(c);
  }
  OpCase c(OpId::swiglu_backward, label);
  const int dgu = c.out("dgu", Kind::kAct, {R, 2 * F}), dw = weighted ? c.out("dw", Kind::kAcc, {R}) : -1;
  const int a = c.out("a", Kind::kAct, {R, F}), da = c.in("da", Kind::kAct, {R, F}, 1);
  const int gu = c.in("gu", Kind::kAct, {R, 2 * F}, gate_up(c)), w = c.in("w", Kind::kAcc, {R}, 1);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.swiglu_backward(s, v[dgu], weighted ? v[dw] : View(), v[a], v[da], v[gu], weighted ? v[w] : View(), limit);
  };
  cases.push_back(c);
}

// Values at a bound are not cut; every third row counts where rows are named.
void add_clamp_counts(std::vector<OpCase>& cases, int64_t R, int64_t F, bool indexed, double limit) {
  OpCase c(OpId::swiglu_clamp_counts, fmt::format("{} x {}{}, limit {}", R, F, indexed ? ", indexed" : "", limit));
  auto values = c.draw(Kind::kAct, R * 2 * F, 2);
  for (size_t i = 0; i < values.size(); i += 7) values[i] = i % 2 ? limit : -limit;
  std::vector<double> rows;
  for (int64_t r = 0; r < R; ++r) rows.push_back(r % 3 == 1 ? static_cast<double>(r) : -1);
  const int count = c.inout("count", Kind::kI64, {3}, {3e9, 2, 1}), gu = c.in("gu", Kind::kAct, {R, 2 * F}, values);
  const int index = c.in("index", Kind::kI32, {R}, rows);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.swiglu_clamp_counts(s, v[count], v[gu], indexed ? v[index] : View(), limit);
  };
  cases.push_back(c);
}

void add_embedding(std::vector<OpCase>& cases, int64_t T, int64_t M, int64_t D, int64_t V) {
  const std::string label = fmt::format("{} x {} x {}, {} tokens", T, M, D, V);
  {
    OpCase c(OpId::embedding_forward, label);
    const int x = c.out("x", Kind::kAct, {T, M, D}), table = c.in("table", Kind::kAct, {V, D}, 1);
    const int token = c.in("token", Kind::kI32, {T}, integers(c, T, V));
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.embedding_forward(s, v[x], v[table], v[token]); };
    cases.push_back(c);
  }
  OpCase c(OpId::embedding_backward, label);
  const int dtable = c.inout("dtable", Kind::kAcc, {V, D}, 1), dx = c.in("dx", Kind::kAcc, {T, M, D}, 1);
  const int token = c.in("token", Kind::kI32, {T}, integers(c, T, V));
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.embedding_backward(s, v[dtable], v[dx], v[token]);
  };
  cases.push_back(c);
}

void add_logprob_forward(std::vector<OpCase>& cases, int64_t T, int64_t V, bool want_best, bool ties) {
  OpCase c(OpId::logprob_forward, fmt::format("{} x {}{}{}", T, V, want_best ? ", best" : "", ties ? ", ties" : ""));
  const int logp = c.out("logp", Kind::kAcc, {T}), lse = c.out("lse", Kind::kAcc, {T});
  const int best = want_best ? c.out("best", Kind::kI32, {T}) : -1;
  const int logits =
      ties ? c.in("logits", Kind::kAcc, {T, V}, integers(c, T * V, 3)) : c.in("logits", Kind::kAcc, {T, V}, 8);
  const int target = c.in("target", Kind::kI32, {T}, integers(c, T, V, 4));
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.logprob_forward(s, v[logp], v[lse], want_best ? v[best] : View(), v[logits], v[target]);
  };
  cases.push_back(c);
}

void add_logprob_backward(std::vector<OpCase>& cases, int64_t T, int64_t V, Kind out, bool in_place) {
  OpCase c(OpId::logprob_backward, fmt::format("{} x {}{}", T, V, in_place ? ", in place" : ""));
  const int logits =
      in_place ? c.inout("dlogits = logits", Kind::kAcc, {T, V}, 2) : c.in("logits", Kind::kAcc, {T, V}, 2);
  const int dlogits = in_place ? logits : c.out("dlogits", out, {T, V});
  std::vector<double> targets = integers(c, T, V, 4), weights, sums;
  for (int64_t t = 0; t < T; ++t) {
    weights.push_back(targets[static_cast<size_t>(t)] < 0 ? 0 : static_cast<float>(c.uniform() - 0.3));
    double sum = 0;
    for (int64_t i = 0; i < V; ++i)
      sum += std::exp(c.operands[static_cast<size_t>(logits)].values[static_cast<size_t>(t * V + i)]);
    sums.push_back(static_cast<float>(std::log(sum)));
  }
  const int lse = c.in("lse", Kind::kAcc, {T}, sums), target = c.in("target", Kind::kI32, {T}, targets);
  const int g = c.in("g", Kind::kAcc, {T}, weights);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.logprob_backward(s, v[dlogits], v[logits], v[lse], v[target], v[g]);
  };
  cases.push_back(c);
}

}  // namespace

void add_row_cases(std::vector<OpCase>& cases) {
  for (const Kind dy : {Kind::kAct, Kind::kAcc})
    for (const Kind dx : {Kind::kAct, Kind::kAcc}) {
      add_rmsnorm(cases, 3, 5, true, 0, dy, dx);
      add_rmsnorm(cases, 130, 193, true, 7, dy, dx);
    }
  add_rmsnorm(cases, 1, 1, false, 0, Kind::kAct, Kind::kAct);
  add_rmsnorm(cases, 257, 64, false, 0, Kind::kAct, Kind::kAct);
  add_rmsnorm(cases, 40, 1030, true, 0, Kind::kAct, Kind::kAct);
  add_rmsnorm_in_place(cases, 70, 100);
  for (const double sign : {1.0, -1.0})
    for (const bool in_place : {false, true}) {
      add_rope(cases, 5, 3, 10, 2, sign, Kind::kAct, Kind::kAct, in_place);
      add_rope(cases, 70, 4, 96, 16, sign, Kind::kAct, Kind::kAct, in_place);
      add_rope(cases, 65, 1, 24, 12, sign, Kind::kAcc, Kind::kAcc, in_place);
    }
  add_rope(cases, 33, 2, 48, 16, 1, Kind::kAct, Kind::kAcc, false);
  add_rope(cases, 33, 2, 48, 11, -1, Kind::kAcc, Kind::kAct, false);
  for (const bool weighted : {false, true}) {
    add_swiglu(cases, 3, 5, weighted, 1);
    add_swiglu(cases, 130, 200, weighted, 10);
    add_swiglu(cases, 65, 77, weighted, 2);
  }
  for (const bool indexed : {false, true}) {
    add_clamp_counts(cases, 4, 5, indexed, 1);
    add_clamp_counts(cases, 130, 200, indexed, 4);
    add_clamp_counts(cases, 65, 77, indexed, 2);
  }
  add_embedding(cases, 7, 4, 5, 6);
  add_embedding(cases, 300, 4, 67, 90);
  add_embedding(cases, 9, 1, 32, 50);
  for (const bool best : {false, true})
    for (const auto& [T, V] : {std::pair<int64_t, int64_t>{4, 3}, {70, 1003}, {9, 64}})
      add_logprob_forward(cases, T, V, best, false);
  add_logprob_forward(cases, 40, 77, true, true);
  for (const bool in_place : {false, true}) {
    add_logprob_backward(cases, 5, 7, Kind::kAcc, in_place);
    add_logprob_backward(cases, 70, 515, Kind::kAcc, in_place);
  }
  add_logprob_backward(cases, 70, 515, Kind::kAct, false);
}

}  // namespace temper::backend::test
