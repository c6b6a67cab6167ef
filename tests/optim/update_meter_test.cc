#include "optim/update_meter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/thread.h"
#include "optim/adamw.h"
#include "optim/one_parameter.h"

namespace temper::optim {
namespace {

using testing::OneParameter;
using testing::TestCtx;

constexpr int64_t kSize = 9001;  // some blocks and a rest
// Squares are summed in f32, in as many sums as a vector has elements: with vectors of 8 they are twice as long as
// with 16.
constexpr double kTolerance = 3e-6;

void fill(OneParameter& w, double scale) {
  for (int64_t i = 0; i < kSize; ++i) {
    w.p.value.data<float>()[i] = static_cast<float>(scale * std::sin(static_cast<double>(i)));
    w.p.grad.data<float>()[i] = static_cast<float>(std::cos(3.0 * static_cast<double>(i)));
    w.p.m.data<float>()[i] = w.p.v.data<float>()[i] = 0;
  }
}

struct Measured {
  std::vector<float> weights;
  UpdateNorms norms;
};

// Two trained tensors of different groups and a frozen one, after one update.
Measured update(OneParameter& router, OneParameter& head, bool with_meter) {
  TestCtx test(backend::cpu(), DType::kF32);
  OneParameter frozen(backend::cpu(), DType::kF32, {3}, "model.norm.weight");
  frozen.p.trainable = false;
  fill(router, 0.5), fill(head, 2);
  router.p.decay = true;
  layers::Parameter* parameters[] = {&router.p, &frozen.p, &head.p};
  UpdateMeter meter(parameters);
  Book book;
  meter.declare(book, DType::kF32);
  backend::Arena arena(backend::cpu().device, book);
  Adamw adamw({0.9, 0.95, 1e-8, 0.1});
  adamw.step(test.ctx, parameters, 1e-4, 0.25, with_meter ? &meter : nullptr);
  Measured out;
  if (with_meter) out.norms = meter.read(test.ctx);
  test.ctx.device.stream_sync(test.ctx.stream);
  for (const OneParameter* w : {&router, &head})
    out.weights.insert(out.weights.end(), w->p.master.data<float>(), w->p.master.data<float>() + kSize);
  return out;
}

TEST(UpdateMeterTest, NormsEqualADirectSum) {
  OneParameter router(backend::cpu(), DType::kF32, {kSize}, "model.layers.0.mlp.gate.weight");
  OneParameter head(backend::cpu(), DType::kF32, {kSize}, "lm_head.weight");
  const Measured got = update(router, head, true);
  fill(router, 0.5), fill(head, 2);  // the weights as they were
  double change[2] = {}, weight[2] = {};
  for (int64_t i = 0; i < 2 * kSize; ++i) {
    const OneParameter& w = i < kSize ? router : head;
    const double after = got.weights[static_cast<size_t>(i)], before = w.p.master.data<float>()[i % kSize];
    change[i / kSize] += (after - before) * (after - before), weight[i / kSize] += after * after;
  }
  const auto& in_router = got.norms.group[static_cast<int>(ParameterGroup::kRouter)];
  const auto& in_head = got.norms.group[static_cast<int>(ParameterGroup::kHead)];
  EXPECT_NEAR(in_router.update, std::sqrt(change[0]), kTolerance * std::sqrt(change[0]));
  EXPECT_NEAR(in_head.update, std::sqrt(change[1]), kTolerance * std::sqrt(change[1]));
  EXPECT_NEAR(in_head.weight, std::sqrt(weight[1]), kTolerance * std::sqrt(weight[1]));
  EXPECT_NEAR(got.norms.global.ratio(), std::sqrt((change[0] + change[1]) / (weight[0] + weight[1])), 1e-9);
  EXPECT_NEAR(in_head.ratio(), std::sqrt(change[1] / weight[1]), 1e-9);
  EXPECT_EQ(got.norms.global.num_elements, 2 * kSize);
  EXPECT_NEAR(in_router.update_rms(), std::sqrt(change[0] / kSize), 1e-9);
  EXPECT_EQ(got.norms.group[static_cast<int>(ParameterGroup::kNorms)].weight, 0) << "frozen";
  EXPECT_EQ(got.norms.group[static_cast<int>(ParameterGroup::kNorms)].ratio(), 0);
}

TEST(UpdateMeterTest, ChangesNoBitOfTheUpdateAndNeitherDoThreads) {
  OneParameter router(backend::cpu(), DType::kF32, {kSize}, "model.layers.0.mlp.gate.weight");
  OneParameter head(backend::cpu(), DType::kF32, {kSize}, "lm_head.weight");
  const int threads_before = num_threads();
  set_num_threads(1);
  const Measured alone = update(router, head, true);
  EXPECT_EQ(update(router, head, false).weights, alone.weights);
  set_num_threads(3);
  const Measured three = update(router, head, true);
  set_num_threads(threads_before);
  EXPECT_EQ(three.weights, alone.weights);
  EXPECT_EQ(three.norms.global.update, alone.norms.global.update);
  EXPECT_EQ(three.norms.global.weight, alone.norms.global.weight);
}

}  // namespace
}  // namespace temper::optim
