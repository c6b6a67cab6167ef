#include <algorithm>
#include <cmath>

#include "backend/op_case.h"

namespace temper::backend::test {
namespace {

// K distinct experts per token, in any order; the last expert of many is never chosen.
std::vector<double> choices(OpCase& c, int64_t T, int64_t K, int64_t E) {
  std::vector<double> out;
  for (int64_t t = 0; t < T; ++t) {
    std::vector<double> row;
    while (static_cast<int64_t>(row.size()) < K) {
      const double e = std::floor(c.uniform() * static_cast<double>(E > K ? E - 1 : E));
      if (std::find(row.begin(), row.end(), e) == row.end()) row.push_back(e);
    }
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

// Router logits with values beyond every branch: above 20, and so low that exp underflows in f32.
std::vector<double> logits(OpCase& c, int64_t count) {
  auto out = c.draw(Kind::kAcc, count, 2);
  for (size_t i = 0; i < out.size(); i += 11) out[i] = i % 3 == 0 ? 25 : i % 3 == 1 ? -70 : -15;
  return out;
}

void add_router(std::vector<OpCase>& cases, int64_t T, int64_t K, int64_t E) {
  const std::string label = fmt::format("{} tokens, {} of {} experts", T, K, E);
  for (const bool ties : {false, true}) {
    OpCase c(OpId::router_topk, label + (ties ? ", ties" : ""));
    auto values = c.draw(Kind::kAcc, T * E, 2);
    if (ties)
      for (double& value : values) value = std::round(value);
    const int index = c.out("index", Kind::kI32, {T, K}), z = c.in("z", Kind::kAcc, {T, E}, values);
    const int bias = c.in("bias", Kind::kAcc, {E}, ties ? 0 : 0.2);
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.router_topk(s, v[index], v[z], v[bias]); };
    cases.push_back(c);
  }
  {
    OpCase c(OpId::router_entropy, label);
    const int entropy = c.inout("entropy", Kind::kAcc, {1}, 1);
    const int z = c.in("z", Kind::kAcc, {T, E}, logits(c, T * E));
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.router_entropy(s, v[entropy], v[z]); };
    cases.push_back(c);
  }
  {
    OpCase c(OpId::router_weights_forward, label);
    const int weight = c.out("weight", Kind::kAcc, {T, K}), z = c.in("z", Kind::kAcc, {T, E}, logits(c, T * E));
    const int index = c.in("index", Kind::kI32, {T, K}, choices(c, T, K, E));
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
      ops.router_weights_forward(s, v[weight], v[z], v[index], 2.5);
    };
    cases.push_back(c);
  }
}

enum class Balance { kNone, kUnreported, kReported };

void add_router_backward(std::vector<OpCase>& cases, int64_t T, int64_t K, int64_t E, Balance mode) {
  OpCase c(OpId::router_weights_backward,
           fmt::format("{} tokens, {} of {} experts, balance {}", T, K, E, static_cast<int>(mode)));
  const int dz = c.out("dz", Kind::kAct, {T, E}), dweight = c.in("dweight", Kind::kAcc, {T, K}, 1);
  const int weight = c.in("weight", Kind::kAcc, {T, K}, 0.4);
  const int z = c.in("z", Kind::kAcc, {T, E}, logits(c, T * E)),
            index = c.in("index", Kind::kI32, {T, K}, choices(c, T, K, E));
  const int loss = c.inout("balance", Kind::kAcc, {1}, 1);  // as it was, unless it is asked for
  // Of a sequence of which these tokens are a half.
  std::vector<double> loads;
  for (int64_t e = 0; e < E; ++e) loads.push_back(static_cast<double>(e % 5 * T));
  const int load = c.in("load", Kind::kI32, {E}, loads);
  const double balance = mode == Balance::kNone ? 0 : 40;  // of the size of the other part
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.router_weights_backward(s, v[dz], v[dweight], v[weight], v[z], v[index], 2.5,
                                mode == Balance::kUnreported ? View() : v[loss], balance, v[load], 2 * T);
  };
  cases.push_back(c);
}

void add_balance(std::vector<OpCase>& cases, int64_t T, int64_t K, int64_t E) {
  const std::string label = fmt::format("{} tokens, {} of {} experts", T, K, E);
  {
    OpCase c(OpId::expert_load, label);
    std::vector<double> before;
    for (int64_t e = 0; e < E; ++e) before.push_back(static_cast<double>(3 * e));
    const int load = c.inout("load", Kind::kI32, {E}, before);
    const int index = c.in("index", Kind::kI32, {T, K}, choices(c, T, K, E));
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.expert_load(s, v[load], v[index]); };
    cases.push_back(c);
  }
  OpCase c(OpId::router_bias_update, label);
  std::vector<double> loads;
  for (int64_t e = 0; e < E; ++e) loads.push_back(static_cast<double>(e % 3));
  const int bias = c.inout("bias", Kind::kAcc, {E}, 0.1), load = c.in("load", Kind::kI32, {E}, loads);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.router_bias_update(s, v[bias], v[load], 1e-3); };
  cases.push_back(c);
}

// Given rows for every third token, whole or with -1 behind the first place; -1 elsewhere.
void add_override(std::vector<OpCase>& cases, int64_t T, int64_t K) {
  OpCase c(OpId::override_rows, fmt::format("{} x {}", T, K));
  std::vector<double> before, given;
  for (int64_t i = 0; i < T * K; ++i) {
    before.push_back(static_cast<double>(i));
    given.push_back(i / K % 3 == 1 && (i % K == 0 || i / K % 2 == 0) ? static_cast<double>(100 + i) : -1);
  }
  const int index = c.inout("index", Kind::kI32, {T, K}, before), from = c.in("given", Kind::kI32, {T, K}, given);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.override_rows(s, v[index], v[from]); };
  cases.push_back(c);
}

void add_hash(std::vector<OpCase>& cases, int64_t T, int64_t K, int64_t V) {
  OpCase c(OpId::router_hash, fmt::format("{} tokens, {} experts", T, K));
  std::vector<double> tokens;
  for (int64_t t = 0; t < T; ++t) tokens.push_back(std::floor(c.uniform() * static_cast<double>(V)));
  const int index = c.out("index", Kind::kI32, {T, K}), table = c.in("table", Kind::kI64, {V, K}, choices(c, V, K, 16));
  const int token = c.in("token", Kind::kI32, {T}, tokens);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.router_hash(s, v[index], v[table], v[token]); };
  cases.push_back(c);
}

void add_dispatch(std::vector<OpCase>& cases, int64_t T, int64_t K, int64_t E, int64_t alignment) {
  OpCase c(OpId::dispatch_plan, fmt::format("{} tokens, {} of {} experts, alignment {}", T, K, E, alignment));
  const int64_t R = T * K + E * (alignment - 1) + 5;
  const int offset = c.out("offset", Kind::kI32, {E + 1}), row_token = c.out("row_token", Kind::kI32, {R});
  const int row_slot = c.out("row_slot", Kind::kI32, {R}), slot_row = c.out("slot_row", Kind::kI32, {T, K});
  const int index = c.in("index", Kind::kI32, {T, K}, choices(c, T, K, E));
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.dispatch_plan(s, v[offset], v[row_token], v[row_slot], v[slot_row], v[index], alignment);
  };
  cases.push_back(c);
}

enum class Base { kNone, kApart, kAliased };

void add_combine(std::vector<OpCase>& cases, int64_t T, int64_t K, int64_t D, Kind out, Kind in, Base base) {
  OpCase c(OpId::combine, fmt::format("{} x {}, {} rows a token, base {}", T, D, K, static_cast<int>(base)));
  const int64_t R = T * K + 7;
  std::vector<double> rows;
  for (int64_t i = 0; i < T * K; ++i) rows.push_back(static_cast<double>((i * 5 + 3) % R));
  const int y = base == Base::kAliased ? c.inout("y = base", out, {T, D}, 1) : c.out("y", out, {T, D});
  const int x = c.in("x", in, {R, D}, 1), slot_row = c.in("slot_row", Kind::kI32, {T, K}, rows);
  const int b = base == Base::kApart ? c.in("base", in, {T, D}, 1) : y;
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.combine(s, v[y], v[x], v[slot_row], base == Base::kNone ? View() : v[b]);
  };
  cases.push_back(c);
}

}  // namespace

void add_moe_cases(std::vector<OpCase>& cases) {
  add_router(cases, 5, 2, 3);
  add_router(cases, 70, 6, 64);
  add_router(cases, 33, 3, 19);
  add_router(cases, 9, 4, 4);
  for (const Balance mode : {Balance::kNone, Balance::kUnreported, Balance::kReported}) {
    add_router_backward(cases, 5, 2, 3, mode);
    add_router_backward(cases, 200, 6, 64, mode);
    add_router_backward(cases, 33, 3, 19, mode);
    add_router_backward(cases, 9, 4, 4, mode);
  }
  add_balance(cases, 5, 2, 3);
  add_balance(cases, 70, 6, 65);
  add_override(cases, 7, 1);
  add_override(cases, 41, 6);
  add_hash(cases, 7, 3, 11);
  add_hash(cases, 200, 6, 50);
  add_dispatch(cases, 5, 2, 4, 1);
  add_dispatch(cases, 90, 3, 8, 16);
  add_dispatch(cases, 300, 6, 33, 8);
  for (const Kind out : {Kind::kAct, Kind::kAcc})
    for (const Kind in : {Kind::kAct, Kind::kAcc})
      for (const Base base : {Base::kNone, Base::kApart, Base::kAliased}) {
        add_combine(cases, 3, 2, 5, out, in, base);
        add_combine(cases, 130, 4, 99, out, in, base);
      }
}

}  // namespace temper::backend::test
