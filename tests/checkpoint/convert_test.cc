#include "checkpoint/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace temper::checkpoint {
namespace {

TEST(ConvertTest, EveryHalfSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = half_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value))
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value))));
    else
      ASSERT_EQ(float_to_half(value), bits) << value;
  }
}

TEST(ConvertTest, HalfRoundsToNearestEven) {
  EXPECT_EQ(half_to_float(0x3C00), 1.0f);
  EXPECT_EQ(half_to_float(0x7BFF), 65504.0f);
  EXPECT_EQ(half_to_float(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(float_to_half(1.0f + std::ldexp(1.0f, -11)), 0x3C00);  // tie, to even
  EXPECT_EQ(float_to_half(1.0f + 3 * std::ldexp(1.0f, -11)), 0x3C02);
  EXPECT_EQ(float_to_half(std::ldexp(1.0f, -25)), 0x0000);
  EXPECT_EQ(float_to_half(1.5f * std::ldexp(1.0f, -25)), 0x0001);
  EXPECT_EQ(float_to_half(65519.0f), 0x7BFF);
  EXPECT_EQ(float_to_half(65520.0f), 0x7C00);  // infinity
  EXPECT_EQ(float_to_half(-1e10f), 0xFC00);
}

TEST(ConvertTest, ConvertsBetweenAllFloatsUnaligned) {
  const FileDType all[] = {FileDType::kF64, FileDType::kF32, FileDType::kF16, FileDType::kBF16};
  const double exact[] = {0.0, -1.5, 0.15625, 96.0, -0.0078125};
  for (const auto from : all)
    for (const auto to : all) {
      std::vector<std::byte> stored(1 + 5 * 8), out(1 + 5 * 8);
      convert_elements(stored.data() + 1, from, exact, FileDType::kF64, 5);
      convert_elements(out.data() + 1, to, stored.data() + 1, from, 5);
      double back[5];
      convert_elements(back, FileDType::kF64, out.data() + 1, to, 5);
      EXPECT_EQ(std::memcmp(back, exact, sizeof exact), 0) << file_dtype_name(from) << " " << file_dtype_name(to);
    }
}

TEST(ConvertTest, KindsDoNotMix) {
  EXPECT_TRUE(is_convertible(FileDType::kI64, FileDType::kI32));
  EXPECT_FALSE(is_convertible(FileDType::kF32, FileDType::kI32));
  EXPECT_FALSE(is_convertible(FileDType::kF32, FileDType::kF8E4M3));
  EXPECT_FALSE(is_convertible(FileDType::kI64, FileDType::kI8));
}

}  // namespace
}  // namespace temper::checkpoint
