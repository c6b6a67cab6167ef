#include "tensor/view.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace temper {
namespace {

struct Numbered {
  std::vector<float> values = std::vector<float>(24);
  View view{values.data(), DType::kF32, {2, 3, 4}};
  Numbered() { std::iota(values.begin(), values.end(), 0.0f); }
};

TEST(View, IsContiguousFromItsShape) {
  Numbered n;
  EXPECT_EQ(n.view.strides[0], 12);
  EXPECT_EQ(n.view.strides[2], 1);
  EXPECT_TRUE(n.view.contiguous());
  EXPECT_EQ(n.view.size(), 24);
  EXPECT_EQ(n.view.num_bytes(), 96);
  EXPECT_EQ(n.view.to_string(), "f32[2, 3, 4]");
}

TEST(View, AnUndefinedOneHasNoSize) {
  const View none;
  EXPECT_FALSE(none.defined());
  EXPECT_EQ(none.size(), 0);
  EXPECT_EQ(none.num_bytes(), 0);
}

TEST(View, SlicesMoveTheOffset) {
  Numbered n;
  const View row = n.view.rows(1, 2);
  EXPECT_EQ(row.data<float>()[0], 12);
  EXPECT_TRUE(row.contiguous());
  const View middle = n.view.slice(1, 1, 3).slice(2, 2, 4);
  EXPECT_EQ(middle.shape, (Shape{2, 2, 2}));
  EXPECT_EQ(middle.data<float>()[0], 6);
  EXPECT_FALSE(middle.contiguous());
  EXPECT_EQ(n.view.first(0).size(), 0);
}

TEST(View, AnOffsetCountsElements) {
  Numbered n;
  const View at(n.values.data(), DType::kF32, {2}, 5);
  EXPECT_EQ(at.data<float>()[1], 6);
}

TEST(View, TransposesWithoutMoving) {
  Numbered n;
  const View t = n.view.t();
  EXPECT_EQ(t.shape, (Shape{2, 4, 3}));
  EXPECT_EQ(t.data<float>()[t.strides[1] * 3 + t.strides[2] * 2], 11);
  EXPECT_FALSE(t.contiguous());
  EXPECT_EQ(t.t().strides, n.view.strides);
}

// A dim of one element may have any stride.
TEST(View, OneRowOfAStridedMatrixIsContiguous) {
  Numbered n;
  const View matrix = n.view.reshape({6, 4}).slice(1, 0, 3);
  EXPECT_FALSE(matrix.contiguous());
  EXPECT_TRUE(matrix.rows(2, 3).contiguous());
}

TEST(View, ReshapesWhatIsContiguous) {
  Numbered n;
  const View flat = n.view.rows(1, 2).reshape({4, 3});
  EXPECT_EQ(flat.data<float>()[flat.strides[0]], 15);
}

TEST(ViewDeathTest, RefusesMisuse) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Numbered n;
  EXPECT_DEATH(n.view.data<double>(), "CHECK failed");
  EXPECT_DEATH(n.view.slice(1, 2, 4), "CHECK failed");
  EXPECT_DEATH(n.view.t().reshape({24}), "CHECK failed");
}

TEST(Bf16, RoundsToNearestEvenAndKeepsNaN) {
  EXPECT_EQ(static_cast<float>(bf16(1.0f)), 1.0f);
  EXPECT_EQ(static_cast<float>(bf16(1.0f + 0x1p-8f)), 1.0f);               // a tie, to even
  EXPECT_EQ(static_cast<float>(bf16(1.0f + 0x1.8p-7f)), 1.0f + 0x1p-6f);   // a tie, to even
  EXPECT_EQ(static_cast<float>(bf16(1.0f + 0x1.01p-8f)), 1.0f + 0x1p-7f);  // above the tie
  EXPECT_EQ(static_cast<float>(bf16(-3.0e38f)), static_cast<float>(bf16(-3.0e38)));
  EXPECT_TRUE(std::isinf(static_cast<float>(bf16(3.4e38f))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::nanf("")))));
}

}  // namespace
}  // namespace temper
