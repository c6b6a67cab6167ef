// Experts that change their ranks between steps: nothing else changes.
#include "train/expert_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "train/layouts.h"

namespace temper::train {
namespace {

using parallel::Layout;
using ::testing::ElementsAre;

TEST(DealExpertsTest, TheHeaviestGoFirstToTheLeastLoadedRankWithRoom) {
  const std::vector<double> load_E = {10, 1, 8, 1, 1, 9, 1, 1};
  EXPECT_THAT(deal_experts(load_E, 2), ElementsAre(0, 1, 3, 4, 2, 5, 6, 7));
  EXPECT_THAT(deal_experts(load_E, 4), ElementsAre(0, 7, 5, 6, 2, 4, 1, 3));
  EXPECT_THAT(deal_experts(std::vector<double>(4, 0.0), 2), ElementsAre(0, 1, 2, 3)) << "no loads: by number";
}

TEST(DealExpertsTest, ImbalanceIsTheBusiestRankOverTheMean) {
  const std::vector<double> load_E = {6, 2, 0, 0};
  EXPECT_DOUBLE_EQ(placement_imbalance(load_E, std::vector<int32_t>{0, 1, 2, 3}, 2), 1.0);
  EXPECT_DOUBLE_EQ(placement_imbalance(load_E, std::vector<int32_t>{0, 2, 1, 3}, 2), 0.5);
  EXPECT_DOUBLE_EQ(placement_imbalance(std::vector<double>(4, 0.0), std::vector<int32_t>{0, 1, 2, 3}, 2), 0.0);
}

testing::TrainedCase uneven_loads() {
  testing::TrainedCase c;
  c.config.moe_intermediate_size = 64;  // so that a rank's experts are shared in pieces of experts
  for (uint64_t step = 0; step < 4; ++step) {
    auto& batches = c.steps.emplace_back();
    for (uint64_t m = 0; m < 4; ++m)
      batches.push_back(testing::pack_row(testing::random_documents({static_cast<int64_t>(9 + 11 * m), 7},
                                                                    testing::tiny_config().vocab_size, 10 * step + m)));
  }
  c.options.logit_chunk = 24;
  c.options.mtp = true;
  c.auxiliary = {.mtp = 0.3, .balance = 0.1, .bias_update_speed = 1e-2};
  c.rebalances = true;
  return c;
}

struct PlacementCase {
  Layout layout;
  layers::Precision precision = layers::Precision::kFp32;
  bool exact = true;
};

class ExpertPlacementTest : public ::testing::TestWithParam<PlacementCase> {};

TEST_P(ExpertPlacementTest, NoBitChanges) {
  testing::TrainedCase c = uneven_loads();
  c.exact = GetParam().exact, c.options.precision = GetParam().precision;
  const testing::Trained moved = train_on(GetParam().layout, c);
  EXPECT_GT(moved.num_dealt, 0);
  c.rebalances = false;
  const testing::Trained stayed = train_on(GetParam().layout, c);
  EXPECT_EQ(difference(moved, stayed).first_bit, "");
  EXPECT_EQ(moved.biases, stayed.biases);
  EXPECT_EQ(moved.planned_bytes, stayed.planned_bytes);
}

// What is not trained is whole on every rank and has no master.
TEST(FrozenExpertsTest, MoveToo) {
  testing::TrainedCase c = uneven_loads();
  c.exact = true, c.options.precision = layers::Precision::kBf16;
  c.options.frozen = {"*.experts.down_proj"};
  const testing::Trained moved = train_on({.dp = 4, .ep = 2, .zero = 1}, c);
  EXPECT_GT(moved.num_dealt, 0);
  c.rebalances = false;
  EXPECT_EQ(difference(moved, train_on({.dp = 4, .ep = 2, .zero = 1}, c)).first_bit, "");
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, ExpertPlacementTest,
    ::testing::Values(PlacementCase{{.dp = 2, .ep = 2, .zero = 0}}, PlacementCase{{.dp = 4, .ep = 4, .zero = 1}},
                      PlacementCase{{.dp = 4, .ep = 2, .zero = 0}}, PlacementCase{{.dp = 4, .ep = 2, .zero = 1}},
                      PlacementCase{{.dp = 4, .ep = 2, .zero = 2}}, PlacementCase{{.dp = 4, .ep = 2, .zero = 3}},
                      PlacementCase{{.dp = 2, .ep = 2, .pp = 2, .zero = 1}},
                      PlacementCase{{.dp = 4, .ep = 2, .zero = 1}, layers::Precision::kBf16},
                      PlacementCase{{.dp = 4, .ep = 2, .zero = 3}, layers::Precision::kBf16},
                      PlacementCase{{.dp = 4, .ep = 4, .zero = 1}, layers::Precision::kBf16, false},
                      PlacementCase{{.dp = 4, .ep = 2, .zero = 0}, layers::Precision::kFp32, false}));

}  // namespace
}  // namespace temper::train
