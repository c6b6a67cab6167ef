#include "optim/clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "optim/one_parameter.h"

namespace temper::optim {
namespace {

using testing::OneParameter;
using testing::TestCtx;

TEST(ClipTest, Factor) {
  EXPECT_DOUBLE_EQ(clip_factor(0.5, 1), 1);
  EXPECT_DOUBLE_EQ(clip_factor(4, 1), 1 / (4 + 1e-6));
  EXPECT_DOUBLE_EQ(clip_factor(4, 0), 1);
}

TEST(ClipTest, GroupsFollowTheNames) {
  EXPECT_EQ(group_of("model.embed_tokens.weight"), ParameterGroup::kEmbedding);
  EXPECT_EQ(group_of("lm_head.weight"), ParameterGroup::kHead);
  EXPECT_EQ(group_of("model.hc_head.hc_fn"), ParameterGroup::kHyperConnections);
  EXPECT_EQ(group_of("model.layers.3.attn_hc.scale"), ParameterGroup::kHyperConnections);
  EXPECT_EQ(group_of("model.layers.3.self_attn.q_a_norm.weight"), ParameterGroup::kNorms);
  EXPECT_EQ(group_of("model.norm.weight"), ParameterGroup::kNorms);
  EXPECT_EQ(group_of("model.layers.3.mlp.gate.weight"), ParameterGroup::kRouter);
  EXPECT_EQ(group_of("model.layers.3.mlp.experts.gate_up_proj"), ParameterGroup::kExperts);
  EXPECT_EQ(group_of("model.layers.3.mlp.shared_experts.gate_proj.weight"), ParameterGroup::kExperts);
  EXPECT_EQ(group_of("model.layers.3.self_attn.compressor.gate_proj.weight"), ParameterGroup::kAttention);
  EXPECT_EQ(group_of("model.layers.3.self_attn.sinks"), ParameterGroup::kAttention);
}

TEST(ClipTest, NormsOfTrainableTensorsByGroup) {
  const auto& backend = backend::cpu_reference();
  TestCtx test(backend, DType::kF32);
  OneParameter a(backend, DType::kF32, {2}, "model.embed_tokens.weight"),
      b(backend, DType::kF32, {1}, "lm_head.weight"), frozen(backend, DType::kF32, {1}, "model.norm.weight");
  frozen.p.trainable = false;
  layers::Parameter* parameters[] = {&a.p, &b.p, &frozen.p};
  a.p.grad.data<float>()[0] = 3, a.p.grad.data<float>()[1] = 4, b.p.grad.data<float>()[0] = 12;
  frozen.p.grad.data<float>()[0] = 100;
  NormMeter meter(parameters);
  Book book;
  meter.declare(book);
  backend::Arena arena(backend.device, book);
  GradientNorms norms = meter.measure(test.ctx);
  EXPECT_DOUBLE_EQ(norms.global, 13);
  EXPECT_DOUBLE_EQ(norms.group[static_cast<int>(ParameterGroup::kEmbedding)], 5);
  EXPECT_DOUBLE_EQ(norms.group[static_cast<int>(ParameterGroup::kHead)], 12);
  EXPECT_DOUBLE_EQ(norms.group[static_cast<int>(ParameterGroup::kNorms)], 0);
  EXPECT_EQ(norms.first_nonfinite, "");

  b.p.grad.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(meter.measure(test.ctx).first_nonfinite, "lm_head.weight");
}

}  // namespace
}  // namespace temper::optim
