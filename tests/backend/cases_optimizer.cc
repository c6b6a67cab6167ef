#include <cmath>

#include "backend/op_case.h"

namespace temper::backend::test {
namespace {

void add_sum_squares(std::vector<OpCase>& cases, int64_t size) {
  OpCase c(OpId::sum_squares, std::to_string(size) + " elements");
  const int sum = c.out("s", Kind::kF64, {1}), x = c.in("x", Kind::kAcc, {size}, 3);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.sum_squares(s, v[sum], v[x]); };
  cases.push_back(c);
}

// With `squares` the steps are of the size of the weights: a small one is known less well than 1e-5 of it in f32.
void add_adamw(std::vector<OpCase>& cases, int64_t size, double eps, bool same_memory, bool squares = false) {
  OpCase c(OpId::adamw, fmt::format("{} elements, eps {}{}{}", size, eps, same_memory ? ", value is master" : "",
                                    squares ? ", with squares" : ""));
  const int master = c.inout("master", Kind::kAcc, {size}, 1), m = c.inout("m", Kind::kAcc, {size}, 0.01);
  const int v2 = c.inout("v", Kind::kAcc, {size}, 0);
  const int value = same_memory ? master : c.out("value", Kind::kAct, {size});
  const int squares_2 = squares ? c.out("squares", Kind::kAcc, {2}) : -1;
  const int grad = c.in("grad", Kind::kAcc, {size}, 0.1);
  for (int64_t i = 0; i < size; ++i) {
    double& second = c.operands[static_cast<size_t>(v2)].values[static_cast<size_t>(i)];
    second = i % 3 ? static_cast<float>(1e-4 * (0.1 + c.uniform())) : 0;
    // An element that never had a gradient: v stays 0 and only decay moves it.
    if (i % 9 == 0) c.operands[static_cast<size_t>(grad)].values[static_cast<size_t>(i)] = 0;
  }
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.adamw(s, v[master], v[m], v[v2], v[value], squares ? v[squares_2] : View(), v[grad], squares ? 0.5 : 1e-3, 0.9,
              0.95, eps, 0.1, 7, 0.5);
  };
  cases.push_back(c);
}

}  // namespace

void add_optimizer_cases(std::vector<OpCase>& cases) {
  for (const int64_t size : {1, 77, 100003}) add_sum_squares(cases, size);
  for (const double eps : {1e-8, 1e-20}) {
    add_adamw(cases, 5, eps, false);
    add_adamw(cases, 70001, eps, false);
  }
  add_adamw(cases, 777, 1e-8, true);
  for (const int64_t size : {5, 70001}) add_adamw(cases, size, 1e-8, false, true);
}

}  // namespace temper::backend::test
