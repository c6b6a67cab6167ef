#include "backend/gradient.h"

#include <gtest/gtest.h>

#include <cmath>

namespace temper::backend::test {

Tensor Tensor::random(Shape shape, uint64_t tag, double scale) {
  const Philox random{7, RandomPurpose::kTest};
  Tensor out(shape);
  for (size_t i = 0; i < out.size(); ++i) out[i] = scale * random.normal(tag, i);
  return out;
}

Tensor Tensor::of(Shape shape, std::vector<double> values) {
  Tensor out(shape);
  CHECK(out.size() == values.size());
  out.values_ = std::move(values);
  return out;
}

double dot(const Tensor& a, const Tensor& b) {
  CHECK(a.size() == b.size(), a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void expect_gradient(const std::string& name, Tensor& x, const Tensor& analytic, const std::function<double()>& loss) {
  constexpr double kStep = 1e-3, kTolerance = 1e-7;
  ASSERT_EQ(x.size(), analytic.size()) << name;
  double largest = 0, worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    const auto shifted = [&](double shift) {
      x[i] = at + shift;
      const double value = loss();
      x[i] = at;
      return value;
    };
    const double numeric =
        (8 * (shifted(kStep) - shifted(-kStep)) - (shifted(2 * kStep) - shifted(-2 * kStep))) / (12 * kStep);
    largest = std::max(largest, std::abs(numeric));
    worst = std::max(worst, std::abs(numeric - analytic[i]));
  }
  EXPECT_GT(largest, 0) << name << ": the loss does not depend on it";
  EXPECT_LE(worst, kTolerance * largest) << name << ", largest gradient " << largest;
}

}  // namespace temper::backend::test
