#include <array>
#include <cmath>

#include "backend/op_case.h"

namespace temper::backend::test {
namespace {

struct Sizes {
  int64_t T, M, D;
  bool head;
  std::string label() const { return fmt::format("{} x {} x {}{}", T, M, D, head ? ", head" : ""); }
  int64_t Y() const { return head ? M : (2 + M) * M; }
  int64_t G() const { return head ? 1 : 3; }
};
constexpr int64_t kIters = 20;
constexpr double kEps = 1e-6;

// trained: the gradients of fn, base and scale are asked for.
void add_pre(std::vector<OpCase>& cases, const Sizes& z, bool trained) {
  const int64_t B = z.M * z.D;
  const bool full = !z.head;
  const double fn_scale = 1 / std::sqrt(static_cast<double>(B));
  // Operands of forward; backward draws the same ones.
  const auto add_inputs = [=](OpCase& c) {
    return std::array<int, 4>{c.in("x", Kind::kAct, {z.T, z.M, z.D}, 2), c.in("fn", Kind::kAcc, {z.Y(), B}, fn_scale),
                              c.in("base", Kind::kAcc, {z.Y()}, 0.5), c.in("scale", Kind::kAcc, {z.G()}, 1)};
  };
  const auto make_forward = [=](OpCase& c, const std::array<int, 4>& inputs) {
    const auto [x, fn, base, scale] = inputs;
    const int mix = c.out("mix", Kind::kAcc, {z.T, z.Y()}), rstd = c.out("rstd", Kind::kAcc, {z.T});
    const int u = c.out("u", Kind::kAct, {z.T, z.D}), post = full ? c.out("post", Kind::kAcc, {z.T, z.M}) : -1;
    const int comb = full ? c.out("comb", Kind::kAcc, {z.T, z.M, z.M}) : -1;
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
      ops.hc_pre_forward(s, v[u], full ? v[post] : View(), full ? v[comb] : View(), v[mix], v[rstd], v[x], v[fn],
                         v[base], v[scale], kIters, kEps, kEps);
    };
    return std::pair<int, int>{mix, rstd};
  };
  OpCase f(OpId::hc_pre_forward, z.label());
  make_forward(f, add_inputs(f));
  cases.push_back(f);

  // mix and rstd are those of x and fn: a kernel may use <dxh, xh> = <dmix, mix>.
  OpCase c(OpId::hc_pre_backward, z.label());
  const auto inputs = add_inputs(c);
  const auto [x, fn, base, scale] = inputs;
  OpCase own_forward = c;
  const auto [mix_out, rstd_out] = make_forward(own_forward, inputs);
  auto forward = run_case(own_forward, cpu_reference(), Precision::kFp64);
  const auto saved = [&](int operand) {
    auto values = forward[static_cast<size_t>(operand)];
    for (double& value : values) value = static_cast<float>(value);
    return values;
  };
  const int mix = c.in("mix", Kind::kAcc, {z.T, z.Y()}, saved(mix_out)),
            rstd = c.in("rstd", Kind::kAcc, {z.T}, saved(rstd_out));
  const int dx = c.inout("dx", Kind::kAcc, {z.T, z.M, z.D}, 1), dfn = c.inout("dfn", Kind::kAcc, {z.Y(), B}, 1);
  const int dbase = c.inout("dbase", Kind::kAcc, {z.Y()}, 1), dscale = c.inout("dscale", Kind::kAcc, {z.G()}, 1);
  const int du = c.in("du", Kind::kAcc, {z.T, z.D}, 1), dpost = full ? c.in("dpost", Kind::kAcc, {z.T, z.M}, 1) : -1;
  const int dcomb = full ? c.in("dcomb", Kind::kAcc, {z.T, z.M, z.M}, 1) : -1;
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    const auto wanted = [&](int i) { return trained ? v[static_cast<size_t>(i)] : View(); };
    ops.hc_pre_backward(s, v[dx], wanted(dfn), wanted(dbase), wanted(dscale), v[du], full ? v[dpost] : View(),
                        full ? v[dcomb] : View(), v[x], v[mix], v[rstd], v[fn], v[base], v[scale], kIters, kEps);
  };
  cases.push_back(c);
}

void add_post(std::vector<OpCase>& cases, const Sizes& z) {
  const Shape TMD{z.T, z.M, z.D}, TD{z.T, z.D}, TM{z.T, z.M}, TMM{z.T, z.M, z.M};
  {
    OpCase c(OpId::hc_post_forward, z.label());
    const int xo = c.out("x'", Kind::kAct, TMD), x = c.in("x", Kind::kAct, TMD, 1), y = c.in("y", Kind::kAct, TD, 1);
    const int post = c.in("post", Kind::kAcc, TM, 1), comb = c.in("comb", Kind::kAcc, TMM, 1);
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
      ops.hc_post_forward(s, v[xo], v[x], v[y], v[post], v[comb]);
    };
    cases.push_back(c);
  }
  for (const bool in_place : {false, true}) {
    OpCase c(OpId::hc_post_backward, z.label() + (in_place ? ", in place" : ""));
    const int dy = c.out("dy", Kind::kAct, TD);
    const int dxo = in_place ? c.inout("dx = dx'", Kind::kAcc, TMD, 1) : c.in("dx'", Kind::kAcc, TMD, 1);
    const int dx = in_place ? dxo : c.out("dx", Kind::kAcc, TMD);
    const int dpost = c.out("dpost", Kind::kAcc, TM), dcomb = c.out("dcomb", Kind::kAcc, TMM);
    const int x = c.in("x", Kind::kAct, TMD, 1), y = c.in("y", Kind::kAct, TD, 1);
    const int post = c.in("post", Kind::kAcc, TM, 1), comb = c.in("comb", Kind::kAcc, TMM, 1);
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
      ops.hc_post_backward(s, v[dy], v[dx], v[dpost], v[dcomb], v[dxo], v[x], v[y], v[post], v[comb]);
    };
    cases.push_back(c);
  }
}

}  // namespace

void add_hyper_cases(std::vector<OpCase>& cases) {
  for (const bool head : {false, true})
    for (const Sizes& z :
         {Sizes{1, 4, 3, head}, Sizes{70, 4, 67, head}, Sizes{19, 2, 33, head}, Sizes{150, 4, 160, head}})
      add_pre(cases, z, true);
  for (const bool head : {false, true}) add_pre(cases, {70, 4, 67, head}, false);
  for (const Sizes& z :
       {Sizes{1, 4, 3, false}, Sizes{70, 4, 67, false}, Sizes{19, 2, 33, false}, Sizes{150, 4, 160, false}})
    add_post(cases, z);
}

}  // namespace temper::backend::test
