// Products of sizes that cross every block border of the packed kernels, and equal bits for any number of threads.
// (What each op computes is tested by the conformance table, on small shapes.)
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "backend/cpu/products.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

// A contiguous tensor of reproducible values in (-1, 1); i32 tensors begin as 0.
class Tensor {
 public:
  Tensor(DType dtype, Shape shape, uint32_t seed) : bytes_(static_cast<size_t>(shape.size() * dtype_bytes(dtype))) {
    view_ = View(bytes_.data(), dtype, shape);
    uint32_t state = seed * 2654435761u + 1;
    for (int64_t i = 0; i < shape.size(); ++i) {
      state = state * 1664525u + 1013904223u;
      const double value = state * 0x1p-31 - 1;
      if (dtype == DType::kF32) view_.data<float>()[i] = static_cast<float>(value);
      if (dtype == DType::kBF16) view_.data<bf16>()[i] = bf16(value);
    }
  }
  const View& view() const { return view_; }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
  View view_;
};

double element(const View& v, int64_t i, int64_t j) {
  const int64_t at = i * v.strides[0] + j * v.strides[1];
  return v.dtype == DType::kF32 ? v.data<float>()[at] : static_cast<float>(v.data<bf16>()[at]);
}

struct ProductCase {
  const char* why;
  DType in, out;
  int64_t M, N, K;
  bool a_transposed, b_transposed;
};

void PrintTo(const ProductCase& c, std::ostream* out) { *out << c.why; }

class Products : public testing::TestWithParam<ProductCase> {};

TEST_P(Products, AgreeWithSumsInDouble) {
  const ProductCase& p = GetParam();
  const Tensor a(p.in, p.a_transposed ? Shape{p.K, p.M} : Shape{p.M, p.K}, 1);
  const Tensor b(p.in, p.b_transposed ? Shape{p.N, p.K} : Shape{p.K, p.N}, 2);
  const Tensor c(p.out, {p.M, p.N}, 3), old(p.out, {p.M, p.N}, 3);
  const View a_MK = p.a_transposed ? a.view().t() : a.view(), b_KN = p.b_transposed ? b.view().t() : b.view();
  cpu().ops.matmul(nullptr, c.view(), a_MK, b_KN, 1);
  for (int64_t m = 0; m < p.M; ++m) {
    for (int64_t n = 0; n < p.N; ++n) {
      double want = element(old.view(), m, n);
      double size = std::abs(want);
      for (int64_t k = 0; k < p.K; ++k) {
        const double term = element(a_MK, m, k) * element(b_KN, k, n);
        want += term;
        size += std::abs(term);
      }
      const double rounding = p.out == DType::kBF16 ? std::abs(want) * 0x1p-8 : 0;
      ASSERT_NEAR(element(c.view(), m, n), want, rounding + 1e-6 * size) << m << ", " << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, Products,
    testing::Values(
        ProductCase{"k in blocks, rows in two blocks", DType::kF32, DType::kF32, 280, 40, 600, false, true},
        ProductCase{"k in blocks, both operands packed", DType::kF32, DType::kF32, 270, 33, 600, true, false},
        ProductCase{"bf16 weight gradient, k in blocks", DType::kBF16, DType::kF32, 60, 70, 1100, true, false},
        ProductCase{"bf16 k uncut, rows and columns in blocks", DType::kBF16, DType::kBF16, 30, 360, 6000, false, true},
        ProductCase{"bf16 odd k, transposed", DType::kBF16, DType::kBF16, 29, 45, 777, true, true},
        ProductCase{"one row", DType::kBF16, DType::kF32, 1, 100, 50, false, false},
        ProductCase{"one column", DType::kF32, DType::kF32, 100, 1, 50, false, false}));

// Whole tiles are streamed; what is left at the right edge is not.
TEST(ProductKernels, GiveTheSameBitsPastTheCaches) {
  constexpr int64_t kM = 50, kN = 80, kK = 70, kStride = 96;
  const Tensor dy(DType::kBF16, {kK, kM}, 1), x(DType::kBF16, {kK, kN}, 2);
  struct alignas(64) Result {
    float values[kM * kStride] = {};
  };
  const auto near = std::make_unique<Result>(), far = std::make_unique<Result>();
  for (const auto* result : {&near, &far}) {
    ProductBlock block{.m = kM,
                       .n = kN,
                       .k = kK,
                       .a = dy.view().raw(),
                       .a_row_stride = 1,
                       .a_col_stride = kM,
                       .b = x.view().raw(),
                       .b_row_stride = kN,
                       .b_col_stride = 1,
                       .c = (*result)->values,
                       .c_row_stride = kStride,
                       .c_is_bf16 = false,
                       .accumulate = false};
    block.c_is_far = result == &far;
    product_kernels().bf16(block);
  }
  EXPECT_NE(near->values[kN - 1], 0);
  EXPECT_EQ(std::memcmp(near->values, far->values, sizeof near->values), 0);
}

// The bits of every product, for teams of several sizes.
TEST(ProductThreads, DoNotChangeTheBits) {
  constexpr int64_t kExperts = 5, kRows = 400, kN = 96, kK = 160;
  const Tensor x(DType::kBF16, {kRows, kK}, 1), w(DType::kBF16, {kExperts, kN, kK}, 2),
      dy(DType::kBF16, {kRows, kN}, 3);
  const Tensor offset(DType::kI32, {kExperts + 1}, 0);
  const int32_t ends[] = {0, 16, 16, 112, 336, 400};
  std::memcpy(offset.view().raw(), ends, sizeof ends);
  const auto results = [&](int threads) {
    const int before = num_threads();
    set_num_threads(threads);
    const Tensor y(DType::kBF16, {kRows, kN}, 4), grouped(DType::kBF16, {kRows, kN}, 5);
    const Tensor dw(DType::kF32, {kN, kK}, 6), grouped_dw(DType::kF32, {kExperts, kN, kK}, 7);
    const OpTable& ops = cpu().ops;
    ops.matmul(nullptr, y.view(), x.view(), w.view().rows(0, 1).reshape({kN, kK}).t(), 0);
    ops.matmul(nullptr, dw.view(), dy.view().t(), x.view(), 1);
    ops.grouped_matmul(nullptr, grouped.view(), x.view(), w.view().t(), offset.view());
    ops.grouped_matmul_dw(nullptr, grouped_dw.view(), dy.view(), x.view(), offset.view(), 1);
    set_num_threads(before);
    return std::vector{y.bytes(), dw.bytes(), grouped.bytes(), grouped_dw.bytes()};
  };
  const auto one = results(1);
  EXPECT_EQ(results(2), one);
  EXPECT_EQ(results(3), one);
  EXPECT_EQ(results(7), one);
}

// Sums over rows and elements are cut into blocks that do not depend on the team.
TEST(RowThreads, DoNotChangeTheBits) {
  constexpr int64_t kRows = 700, kD = 96;
  const Tensor x(DType::kBF16, {kRows, kD}, 1), dy(DType::kF32, {kRows, kD}, 2), w(DType::kF32, {kD}, 3);
  const Tensor rstd(DType::kF32, {kRows}, 4), token(DType::kI32, {kRows}, 0);
  for (int64_t t = 0; t < kRows; ++t) token.view().data<int32_t>()[t] = static_cast<int32_t>(t * t % 11);
  const auto results = [&](int threads) {
    const int before = num_threads();
    set_num_threads(threads);
    const Tensor dx(DType::kBF16, {kRows, kD}, 5), dw(DType::kF32, {kD}, 6), dtable(DType::kF32, {11, kD}, 7);
    const Tensor sum(DType::kF64, {1}, 0);
    const OpTable& ops = cpu().ops;
    ops.rmsnorm_backward(nullptr, dx.view(), dw.view(), dy.view(), x.view(), rstd.view(), w.view());
    ops.embedding_backward(nullptr, dtable.view(), dy.view().reshape({kRows, 1, kD}), token.view());
    ops.sum_squares(nullptr, sum.view(), dy.view());
    set_num_threads(before);
    return std::vector{dx.bytes(), dw.bytes(), dtable.bytes(), sum.bytes()};
  };
  const auto one = results(1);
  EXPECT_EQ(results(2), one);
  EXPECT_EQ(results(5), one);
}

}  // namespace
}  // namespace temper::backend
