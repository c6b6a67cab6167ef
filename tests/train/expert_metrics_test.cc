#include "train/expert_metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace temper::train {
namespace {

TEST(ExpertMetricsTest, OfLoadsEntropiesAndClamps) {
  std::vector<model::MoeStatistics> moe_L(3);
  moe_L[0].num_gate_high = 3, moe_L[0].num_elements = 100;  // routed by token id
  moe_L[1].load_E = {6, 2, 0, 0}, moe_L[1].entropy = 1, moe_L[1].num_linear_low = 5, moe_L[1].num_elements = 100;
  moe_L[2].load_E = {3, 1, 2, 2}, moe_L[2].entropy = 1.5, moe_L[2].num_linear_high = 4, moe_L[2].num_elements = 50;
  moe_L[1].bias_range = 0.25, moe_L[2].bias_range = 0.5;
  const ExpertMetrics metrics = expert_metrics(moe_L);
  ASSERT_EQ(metrics.layers.size(), 2u);
  EXPECT_EQ(metrics.layers[0].layer, 1);
  EXPECT_DOUBLE_EQ(metrics.layers[0].overload, 3);
  EXPECT_DOUBLE_EQ(metrics.layers[0].variation, std::sqrt((16 + 0 + 4 + 4) / 4.0) / 2);
  EXPECT_EQ(metrics.layers[0].num_dead, 2);
  EXPECT_DOUBLE_EQ(metrics.layers[1].overload, 1.5);
  EXPECT_DOUBLE_EQ(metrics.overload, 3);
  EXPECT_DOUBLE_EQ(metrics.variation, (metrics.layers[0].variation + std::sqrt(0.5) / 2) / 2);
  EXPECT_EQ(metrics.bias_range, 0.5);
  EXPECT_EQ(metrics.num_dead, 2);
  EXPECT_DOUBLE_EQ(metrics.entropy, 1.25);
  EXPECT_EQ(metrics.num_gate_high, 3);
  EXPECT_EQ(metrics.num_linear_high, 4);
  EXPECT_EQ(metrics.num_linear_low, 5);
  EXPECT_DOUBLE_EQ(metrics.clamped_share, 12.0 / 500);
}

TEST(ExpertMetricsTest, OfAStepThatComputedNothing) {
  const ExpertMetrics none = expert_metrics({});
  EXPECT_TRUE(none.layers.empty());
  EXPECT_EQ(none.overload, 0);
  EXPECT_EQ(none.clamped_share, 0);
  std::vector<model::MoeStatistics> moe_L(1);
  moe_L[0].load_E = {0, 0};
  EXPECT_EQ(expert_metrics(moe_L).overload, 0);
  EXPECT_EQ(expert_metrics(moe_L).num_dead, 2);
}

}  // namespace
}  // namespace temper::train
