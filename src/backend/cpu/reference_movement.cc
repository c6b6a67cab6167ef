// Movement: fill, copy, add, gather, scatter.
#include "backend/cpu/reference.h"

namespace temper::backend {
namespace reference {
namespace {

template <class A>
void fill(Out y, double value) {
  with_dtype(y, [&](auto* to) {
    using T = std::remove_reference_t<decltype(*to)>;
    for_each_offset(y, [&](int64_t i) { to[i] = convert<T>(value); });
  });
}

template <class A>
void copy(Out y, In x) {
  const bool integral = x.dtype == DType::kI32 || x.dtype == DType::kI64;
  if (integral)
    store(y, load<int64_t>(x, y.shape));
  else
    store(y, load<A>(x, y.shape));
}

template <class A>
void add(InOut y, In x, double alpha) {
  const auto x_in = load<A>(x, y.shape);
  auto sum = load<A>(y, y.shape);
  for (int64_t i = 0; i < sum.size(); ++i) sum(i) += static_cast<A>(alpha) * x_in(i);
  store(y, sum);
}

template <class A>
void gather_rows(Out y_RD, In x_TD, In index_R) {
  const int64_t R = index_R.size(), T = x_TD.dim(0), D = x_TD.dim(1);
  const auto index = load<int64_t>(index_R, {R});
  expect_shape(y_RD, {R, D});
  for (int64_t r = 0; r < R; ++r) {
    CHECK(index(r) >= -1 && index(r) < T, index(r), T);
    if (index(r) < 0)
      fill<A>(y_RD.rows(r, r + 1), 0);
    else
      copy<A>(y_RD.rows(r, r + 1), x_TD.rows(index(r), index(r) + 1));
  }
}

template <class A>
void scatter_rows(InOut y_TD, In x_RD, In index_R) {
  const int64_t R = index_R.size(), T = y_TD.dim(0), D = y_TD.dim(1);
  const auto index = load<int64_t>(index_R, {R});
  expect_shape(x_RD, {R, D});
  for (int64_t r = 0; r < R; ++r) {
    CHECK(index(r) >= -1 && index(r) < T, index(r), T);
    if (index(r) >= 0) copy<A>(y_TD.rows(index(r), index(r) + 1), x_RD.rows(r, r + 1));
  }
}

template <class A>
void scatter_add_rows(InOut y_TD, In x_RD, In index_R) {
  const int64_t R = index_R.size(), T = y_TD.dim(0), D = y_TD.dim(1);
  const auto x = load<A>(x_RD, {R, D});
  const auto index = load<int64_t>(index_R, {R});
  auto y = load<A>(y_TD, {T, D});
  for (int64_t r = 0; r < R; ++r) {
    if (index(r) == -1) continue;
    CHECK(index(r) >= 0 && index(r) < T, index(r), T);
    for (int64_t d = 0; d < D; ++d) y(index(r), d) += x(r, d);
  }
  store(y_TD, y);
}

}  // namespace
}  // namespace reference

void register_reference_movement(OpTable& ops) {
  using namespace reference;
  TEMPER_REFERENCE(ops, fill);
  TEMPER_REFERENCE(ops, copy);
  TEMPER_REFERENCE(ops, add);
  TEMPER_REFERENCE(ops, gather_rows);
  TEMPER_REFERENCE(ops, scatter_rows);
  TEMPER_REFERENCE(ops, scatter_add_rows);
}

}  // namespace temper::backend
