// Layouts in bf16: rounding differs wherever a sum is another, so that bits and six digits are no measure. What is:
// many ranks come as close to fp32 as one rank does.
#include <gtest/gtest.h>

#include "train/layouts.h"

namespace temper::train {
namespace {

using parallel::Layout;

class LayoutInBf16 : public ::testing::TestWithParam<Layout> {};

TEST_P(LayoutInBf16, IsAsCloseToFp32AsOneRank) {
  testing::TrainedCase c = testing::layout_case(4);
  const auto exact = testing::train_alone(c);
  c.options.precision = layers::Precision::kBf16;
  const auto one = testing::difference(testing::train_alone(c), exact);
  const auto many = testing::difference(testing::train_on(GetParam(), c), exact);
  constexpr double kTolerance = 2e-2;  // of losses (docs/numerics.md)
  EXPECT_LE(many.loss_curve, kTolerance);
  constexpr double kAsClose = 1.25;  // a rounding more or less
  EXPECT_LE(many.gradient, kAsClose * one.gradient);
  EXPECT_LE(many.weight, kAsClose * one.weight);
  EXPECT_GT(many.gradient, 1e-4) << "it was bf16";
}

INSTANTIATE_TEST_SUITE_P(Layouts, LayoutInBf16,
                         ::testing::Values(Layout{.dp = 2, .zero = 2}, Layout{.dp = 2, .ep = 2, .zero = 1},
                                           Layout{.dp = 1, .cp = 2, .zero = 1}, Layout{.dp = 1, .tp = 2, .zero = 0},
                                           Layout{.dp = 1, .tp = 4, .zero = 3},
                                           Layout{.dp = 1, .ep = 2, .pp = 2, .cp = 2, .tp = 2, .zero = 2}));

}  // namespace
}  // namespace temper::train
