// A bench for one layer in float64 on the scalar reference: memory, random numbers, and directional derivatives by
// fourth-order central differences.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "base/philox.h"
#include "layers/ctx.h"
#include "layers/parameter.h"
#include "layers/token_layout.h"

namespace temper::layers {

class LayerRig {
 public:
  static constexpr Dtypes kDtypes{DType::kF64, DType::kF64};

  LayerRig() : stream_(backend::cpu_reference().device.stream_create()) {}
  LayerRig(const LayerRig&) = delete;
  LayerRig& operator=(const LayerRig&) = delete;
  ~LayerRig() { backend::cpu_reference().device.stream_destroy(stream_); }

  Ctx ctx() const {
    const auto& reference = backend::cpu_reference();
    return {reference.ops, reference.device, stream_, DType::kF64, DType::kF64};
  }

  // A tensor of the test itself; view must stay where it is.
  void declare(View& view, Shape shape) { book.declare(&view, TensorKind::kSaved, "test", DType::kF64, shape); }
  void declare_index(View& view, Shape shape) { book.declare(&view, TensorKind::kInput, "test", DType::kI32, shape); }
  void declare_parameters(const ParameterList& list) {
    for (Parameter* p : list) {
      book.declare(&p->value, TensorKind::kParameter, p->name, p->dtype, p->shape);
      book.declare(&p->grad, TensorKind::kGradient, p->name, DType::kF64, p->shape);
    }
  }
  // Grants memory, fills parameters with random values (norm weights and mHC scales around 1, others around 0).
  void grant(const ParameterList& list) {
    arena_ = std::make_unique<backend::Arena>(backend::cpu_reference().device, book);
    for (Parameter* p : list)
      if (p->dtype == DType::kF64) randomize(p->value, 0.5, p->init == Init::kOnes ? 1.0 : 0.0);
  }
  void randomize(View view, double stddev, double mean = 0) {
    const Philox random{17, RandomPurpose::kTest};
    ++tensor_;
    for (int64_t i = 0; i < view.size(); ++i) view.data<double>()[i] = mean + stddev * random.normal(tensor_, i);
  }

  // Compares <gradient, direction> with the derivative of loss along a random direction of `at`, for one tensor.
  void expect_gradient(const std::string& name, View at, View gradient, const std::function<double()>& loss,
                       double tolerance = 1e-7) {
    const Philox random{23, RandomPurpose::kTest};
    ++tensor_;
    const int64_t n = at.size();
    std::vector<double> direction(n), origin(at.data<double>(), at.data<double>() + n);
    double analytic = 0, scale = 0;
    for (int64_t i = 0; i < n; ++i) {
      direction[i] = random.normal(tensor_, i);
      analytic += gradient.data<double>()[i] * direction[i];
      scale += std::abs(gradient.data<double>()[i] * direction[i]);
    }
    const auto shifted = [&](double h) {
      for (int64_t i = 0; i < n; ++i) at.data<double>()[i] = origin[i] + h * direction[i];
      return loss();
    };
    const double h = step;
    const double numeric = (8 * (shifted(h) - shifted(-h)) - (shifted(2 * h) - shifted(-2 * h))) / (12 * h);
    for (int64_t i = 0; i < n; ++i) at.data<double>()[i] = origin[i];
    EXPECT_NEAR(analytic, numeric, tolerance * std::max(scale, 1e-3)) << name;
    EXPECT_GT(scale, 1e-6) << name << ": a gradient that is zero proves nothing";
  }
  Book book;
  double step = 3e-4;  // of the differences; smaller where the function has kinks close by

 private:
  backend::Stream* stream_;
  std::unique_ptr<backend::Arena> arena_;
  uint64_t tensor_ = 0;
};

inline double dot(View a, View b) {
  double sum = 0;
  for (int64_t i = 0; i < a.size(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

}  // namespace temper::layers
