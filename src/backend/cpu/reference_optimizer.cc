// Optimizer: sum of squares for the global norm, AdamW.
#include <cmath>

#include "backend/cpu/reference.h"

namespace temper::backend {
namespace reference {
namespace {

template <class A>
void sum_squares(Out s_1, In x) {
  const auto values = load<A>(x, x.shape);
  Array<A> sum({1});
  for (int64_t i = 0; i < values.size(); ++i) sum(0) += values(i) * values(i);
  store(s_1, sum);
}

template <class A>
void adamw(InOut master, InOut m, InOut v, Out value, Out squares_2, In grad, double lr, double beta1, double beta2,
           double eps, double decay, int64_t step, double grad_scale) {
  CHECK(step >= 1, step);
  const Shape shape = master.shape;
  auto w = load<A>(master, shape), m_new = load<A>(m, shape), v_new = load<A>(v, shape);
  const auto gradient = load<A>(grad, shape);
  const A correction1 = static_cast<A>(1 - std::pow(beta1, step));
  const A correction2 = static_cast<A>(std::sqrt(1 - std::pow(beta2, step)));
  const A b1 = static_cast<A>(beta1), b2 = static_cast<A>(beta2);
  Array<double> squares({2});
  for (int64_t i = 0; i < w.size(); ++i) {
    const A g = static_cast<A>(grad_scale) * gradient(i);
    m_new(i) = b1 * m_new(i) + (1 - b1) * g;
    v_new(i) = b2 * v_new(i) + (1 - b2) * g * g;
    const A before = w(i);
    w(i) *= static_cast<A>(1 - lr * decay);
    // With eps near 0 an element whose gradient was always 0 (or squares to 0) would be 0/0 or a huge step.
    if (v_new(i) != 0)
      w(i) -= static_cast<A>(lr) / correction1 * m_new(i) / (std::sqrt(v_new(i)) / correction2 + static_cast<A>(eps));
    const auto change = static_cast<double>(w(i) - before), after = static_cast<double>(w(i));
    squares(0) += change * change;
    squares(1) += after * after;
  }
  store(master, w);
  store(m, m_new);
  store(v, v_new);
  store(value, w);
  if (squares_2.defined()) store(squares_2, squares);
}

}  // namespace
}  // namespace reference

void register_reference_optimizer(OpTable& ops) {
  using namespace reference;
  TEMPER_REFERENCE(ops, sum_squares);
  TEMPER_REFERENCE(ops, adamw);
}

}  // namespace temper::backend
