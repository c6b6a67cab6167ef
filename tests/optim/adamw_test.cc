#include "optim/adamw.h"

#include <gtest/gtest.h>

#include <cmath>

#include "optim/one_parameter.h"

namespace temper::optim {
namespace {

using testing::OneParameter;
using testing::TestCtx;

// Post-training 7.3: w = 1, lr 1e-3, betas (0.9, 0.95), eps 1e-8, decay 0.1, g = 0.1, -0.2, 0.05.
template <class T>
void check_vectors(const backend::Backend& backend, double tolerance) {
  TestCtx test(backend, kDTypeOf<T>);
  OneParameter w(backend, kDTypeOf<T>, {1});
  w.p.decay = true;
  w.p.value.data<T>()[0] = 1;
  layers::Parameter* parameters[] = {&w.p};
  Adamw adamw({0.9, 0.95, 1e-8, 0.1});
  const double g[] = {0.1, -0.2, 0.05}, want_w[] = {0.9989000001, 0.9991634840, 0.9992007908};
  const double want_m[] = {1.0e-2, -1.1e-2, -4.9e-3}, want_v[] = {5.0e-4, 2.475e-3, 2.47625e-3};
  for (int i = 0; i < 3; ++i) {
    w.p.grad.data<T>()[0] = static_cast<T>(g[i] * 4);
    adamw.step(test.ctx, parameters, 1e-3, 0.25);  // grad_scale undoes the factor
    test.ctx.device.stream_sync(test.ctx.stream);
    EXPECT_NEAR(w.p.value.data<T>()[0], want_w[i], tolerance) << i;
    EXPECT_NEAR(w.p.m.data<T>()[0], want_m[i], tolerance) << i;
    EXPECT_NEAR(w.p.v.data<T>()[0], want_v[i], tolerance) << i;
  }
  EXPECT_EQ(adamw.num_applied(), 3);
}

TEST(AdamwTest, VectorsReferenceF64) { check_vectors<double>(backend::cpu_reference(), 1e-10); }
TEST(AdamwTest, VectorsReferenceF32) { check_vectors<float>(backend::cpu_reference(), 1.5e-7); }
TEST(AdamwTest, VectorsFastF32) { check_vectors<float>(backend::cpu(), 1.5e-7); }

TEST(AdamwTest, GroupsDecideDecayAndFrozenTensorsStay) {
  const auto& backend = backend::cpu_reference();
  TestCtx test(backend, DType::kF64);
  OneParameter decayed(backend, DType::kF64, {1}), plain(backend, DType::kF64, {1}), frozen(backend, DType::kF64, {1});
  decayed.p.decay = true;
  frozen.p.trainable = false;
  layers::Parameter* parameters[] = {&decayed.p, &plain.p, &frozen.p};
  for (auto* p : parameters) p->value.data<double>()[0] = 2, p->grad.data<double>()[0] = 0;
  Adamw adamw({0.9, 0.95, 1e-20, 0.1});
  adamw.step(test.ctx, parameters, 0.5, 1);
  test.ctx.device.stream_sync(test.ctx.stream);
  EXPECT_NEAR(decayed.p.value.data<double>()[0], 2 * (1 - 0.5 * 0.1), 1e-15);
  EXPECT_EQ(plain.p.value.data<double>()[0], 2);  // 0 / (0 + eps) moves nothing
  EXPECT_EQ(frozen.p.value.data<double>()[0], 2);
}

}  // namespace
}  // namespace temper::optim
