// Products: matmul, grouped matmul and its weight gradient.
#include "backend/cpu/reference.h"

namespace temper::backend {
namespace reference {
namespace {

// c [M, N] += a [M, K] b [K, N], all dense; the sum over k runs in ascending order.
template <class A>
void accumulate_product(A* c, const A* a, const A* b, int64_t M, int64_t N, int64_t K) {
  for (int64_t m = 0; m < M; ++m)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t n = 0; n < N; ++n) c[m * N + n] += a[m * K + k] * b[k * N + n];
}

template <class A>
void matmul(InOut c_MN, In a_MK, In b_KN, double beta) {
  const int rank = c_MN.rank();
  CHECK(rank == 2 || rank == 3, rank);
  CHECK(beta == 0 || beta == 1, beta);
  const int64_t batch = rank == 3 ? c_MN.dim(0) : 1;
  const int64_t M = c_MN.dim(rank - 2), N = c_MN.dim(rank - 1), K = a_MK.dim(a_MK.rank() - 1);
  const auto shape = [&](int64_t rows, int64_t columns) {
    return rank == 3 ? Shape{batch, rows, columns} : Shape{rows, columns};
  };
  const auto a = load<A>(a_MK, shape(M, K));
  const auto b = load<A>(b_KN, shape(K, N));
  Array<A> c(shape(M, N));
  for (int64_t i = 0; i < batch; ++i)
    accumulate_product(c.data() + i * M * N, a.data() + i * M * K, b.data() + i * K * N, M, N, K);
  if (beta == 1) {  // with beta = 0 the old c is not read: it may be anything
    const auto old = load<A>(c_MN, shape(M, N));
    for (int64_t i = 0; i < c.size(); ++i) c(i) += old(i);
  }
  store(c_MN, c);
}

// Row offsets of the experts: ascending, inside [0, R].
Array<int64_t> load_offsets(In offset_E1, int64_t E, int64_t R) {
  auto offset = load<int64_t>(offset_E1, {E + 1});
  for (int64_t e = 0; e < E; ++e) CHECK(offset(e) <= offset(e + 1), e, offset(e), offset(e + 1));
  CHECK(offset(0) >= 0 && offset(E) <= R, offset(0), offset(E), R);
  return offset;
}

template <class A>
void grouped_matmul(Out c_RN, In a_RK, In b_EKN, In offset_E1) {
  const int64_t R = a_RK.dim(0), K = a_RK.dim(1), E = b_EKN.dim(0), N = b_EKN.dim(2);
  expect_shape(c_RN, {R, N});
  expect_shape(a_RK, {R, K});
  expect_shape(b_EKN, {E, K, N});
  const auto offset = load_offsets(offset_E1, E, R);
  for (int64_t e = 0; e < E; ++e) {  // rows of no expert are left alone
    const int64_t begin = offset(e), end = offset(e + 1);
    if (begin == end) continue;
    View b_1KN = b_EKN.rows(e, e + 1);
    const auto a = load<A>(a_RK.rows(begin, end), {end - begin, K});
    const auto b = load<A>(b_1KN, {1, K, N});
    Array<A> c({end - begin, N});
    accumulate_product(c.data(), a.data(), b.data(), end - begin, N, K);
    store(c_RN.rows(begin, end), c);
  }
}

template <class A>
void grouped_matmul_dw(InOut dw_ENK, In dy_RN, In x_RK, In offset_E1, double beta) {
  const int64_t E = dw_ENK.dim(0), N = dw_ENK.dim(1), K = dw_ENK.dim(2), R = x_RK.dim(0);
  const auto dy = load<A>(dy_RN, {R, N});
  const auto x = load<A>(x_RK, {R, K});
  const auto offset = load_offsets(offset_E1, E, R);
  for (int64_t e = 0; e < E; ++e) {
    Array<A> dw({1, N, K});
    if (beta != 0) dw = load<A>(dw_ENK.rows(e, e + 1), {1, N, K});
    for (int64_t r = offset(e); r < offset(e + 1); ++r)
      for (int64_t n = 0; n < N; ++n)
        for (int64_t k = 0; k < K; ++k) dw(n * K + k) += dy(r, n) * x(r, k);
    store(dw_ENK.rows(e, e + 1), dw);
  }
}

}  // namespace
}  // namespace reference

void register_reference_products(OpTable& ops) {
  using namespace reference;
  TEMPER_REFERENCE(ops, matmul);
  TEMPER_REFERENCE(ops, grouped_matmul);
  TEMPER_REFERENCE(ops, grouped_matmul_dw);
}

}  // namespace temper::backend
