// Gradients of ops against finite differences, in f64 on the scalar reference.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "base/philox.h"

namespace temper::backend::test {

// A host tensor that owns its elements; passes as an operand. f64, or i32 for indices.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Shape shape) : shape_(shape), values_(static_cast<size_t>(shape.size())) {}
  // normal(0, scale) values; equal tags give equal values.
  static Tensor random(Shape shape, uint64_t tag, double scale = 1);
  static Tensor of(Shape shape, std::vector<double> values);

  View view() { return View(values_.data(), DType::kF64, shape_); }
  double& operator[](size_t i) { return values_[i]; }
  double operator[](size_t i) const { return values_[i]; }
  size_t size() const { return values_.size(); }
  const Shape& shape() const { return shape_; }

 private:
  Shape shape_;
  std::vector<double> values_;
};

// i32 operands; an empty one is an undefined View.
class Indices {
 public:
  Indices() = default;
  Indices(Shape shape, std::vector<int32_t> values) : shape_(shape), values_(std::move(values)) {
    CHECK(shape_.size() == static_cast<int64_t>(values_.size()));
  }
  template <class T>
  static Indices of(const std::vector<T>& values) {
    return {{static_cast<int64_t>(values.size())}, std::vector<int32_t>(values.begin(), values.end())};
  }
  View view() { return values_.empty() ? View() : View(values_.data(), DType::kI32, shape_); }

 private:
  Shape shape_{0};
  std::vector<int32_t> values_;
};

double dot(const Tensor& a, const Tensor& b);

// Checks d loss / d x, for every element of x, against the five-point difference
//   (8 (L(x+h) - L(x-h)) - (L(x+2h) - L(x-2h))) / 12h,
// whose error is h^4 / 30 times the fifth derivative. The largest difference must be at most 1e-7 of the largest
// element.
void expect_gradient(const std::string& name, Tensor& x, const Tensor& analytic, const std::function<double()>& loss);

}  // namespace temper::backend::test
