#include "checkpoint/encoding.h"

#include <gmock/gmock.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "checkpoint/convert.h"
#include "checkpoint/files.h"
#include "checkpoint/small_floats.h"

namespace temper::checkpoint {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> decode(const EncodedTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.size()));
  decode_rows(tensor, 0, tensor.num_rows(), values.data(), FileDType::kF32);
  return values;
}

// Numbers of many magnitudes, some zero, none special.
std::vector<float> numbers(int64_t count, uint32_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  for (auto& value : values) {
    seed = seed * 1664525u + 1013904223u;
    const int exponent = static_cast<int>(seed >> 28) - 8;
    value = std::ldexp(static_cast<float>(static_cast<int32_t>(seed << 8) >> 16) / 32768, exponent);
  }
  return values;
}

TEST(SmallFloatsTest, EveryCodeSurvivesTheWayThroughFloat) {
  for (int code = 0; code < 256; ++code) {
    const float value = e4m3_to_float(static_cast<uint8_t>(code));
    if ((code & 0x7F) == 0x7F)
      EXPECT_TRUE(std::isnan(value));
    else
      EXPECT_EQ(float_to_e4m3(value), code) << value;
  }
  for (int code = 0; code < 16; ++code) EXPECT_EQ(float_to_e2m1(e2m1_to_float(static_cast<uint8_t>(code))), code);
  for (int code = 0; code < 255; ++code)
    EXPECT_EQ(e8m0_to_float(static_cast<uint8_t>(code)), std::ldexp(1.0f, code - 127));
  EXPECT_TRUE(std::isnan(e8m0_to_float(255)));
}

// Architecture page 10.3, and torch.float8_e4m3fn.
TEST(SmallFloatsTest, CodesMeanThePublishedNumbers) {
  EXPECT_EQ(e4m3_to_float(0x38), 1.0f);
  EXPECT_EQ(e4m3_to_float(0x30), 0.5f);
  EXPECT_EQ(e4m3_to_float(0x01), 0.001953125f);
  EXPECT_EQ(e4m3_to_float(0x07), 0.013671875f);
  EXPECT_EQ(e4m3_to_float(0x08), 0.015625f);
  EXPECT_EQ(e4m3_to_float(0x7E), 448.0f);
  EXPECT_EQ(e4m3_to_float(0x81), -0.001953125f);
  const std::pair<float, int> rounded[] = {{0x1p-10f, 0},       {0x3p-11f, 1}, {0.0029296875f, 2}, {0.0048828125f, 2},
                                           {0.01513671875f, 8}, {1.0625f, 56}, {1.1875f, 58},      {-17.0f, 216},
                                           {-19.0f, 218},       {432.0f, 126}, {3.14159f, 69},     {0.3333f, 43},
                                           {-0.0101f, 133},     {100.0f, 108}, {1e-4f, 0},         {-0.0f, 128},
                                           {0.0166015625f, 8},  {440.0f, 126}, {447.899994f, 126}, {1e30f, 126}};
  for (const auto& [value, code] : rounded) EXPECT_EQ(float_to_e4m3(value), code) << value;
}

// Architecture page 10.6.
TEST(SmallFloatsTest, E2M1TiesGoToTheEvenCode) {
  const std::pair<float, float> ties[] = {{0.25f, 0}, {0.75f, 1}, {1.25f, 1}, {1.75f, 2},
                                          {2.5f, 2},  {3.5f, 4},  {5.0f, 4},  {100.0f, 6}};
  for (const auto& [value, nearest] : ties) {
    EXPECT_EQ(e2m1_to_float(float_to_e2m1(value)), nearest);
    EXPECT_EQ(e2m1_to_float(float_to_e2m1(-value)), -nearest);
    if (value > 6) continue;
    EXPECT_GT(e2m1_to_float(float_to_e2m1(std::nextafter(value, 9.0f))), nearest - (nearest > value));
    EXPECT_EQ(e2m1_to_float(float_to_e2m1(std::nextafter(value, nearest))), nearest);
  }
}

TEST(EncodingTest, ShapeAndDTypeDecide) {
  EXPECT_EQ(encoded_tensor(Held("a.weight", FileDType::kBF16, {2, 3}), nullptr).encoding, Encoding::kPlain);
  const Held fp8("a.weight", FileDType::kF8E4M3, {130, 257}), fp8_scale("a.scale", FileDType::kF8E8M0, {2, 3});
  const EncodedTensor eight = encoded_tensor(fp8, &fp8_scale);
  EXPECT_EQ(eight.encoding, Encoding::kFp8);
  EXPECT_THAT(eight.shape, ElementsAre(130, 257));
  const Held fp8_wide("a.weight_scale_inv", FileDType::kF32, {2, 3});
  EXPECT_EQ(encoded_tensor(fp8, &fp8_wide).encoding, Encoding::kFp8);
  const Held fp4_scale("a.scale", FileDType::kF8E8M0, {5, 4});
  for (const auto dtype : {FileDType::kI8, FileDType::kU8}) {
    const Held fp4("a.weight", dtype, {5, 64});
    const EncodedTensor four = encoded_tensor(fp4, &fp4_scale);
    EXPECT_EQ(four.encoding, Encoding::kFp4);
    EXPECT_THAT(four.shape, ElementsAre(5, 128));
    EXPECT_EQ(four.to_string(), "FP4 [5, 128]");
  }
}

TEST(EncodingTest, WhatIsNoEncodingIsRefusedWithBothFound) {
  struct Case {
    FileDType dtype;
    std::vector<int64_t> shape;
    FileDType scale_dtype;
    std::vector<int64_t> scale_shape;
    const char* message;
  };
  const Case cases[] = {
      {FileDType::kBF16, {4, 4}, FileDType::kF32, {1, 1}, "BF16 [4, 4] and has the scale x.scale F32 [1, 1]"},
      {FileDType::kF8E4M3, {256, 64}, FileDType::kF8E8M0, {1, 1}, "needs a scale F8_E8M0 or F32 [2, 1]"},
      {FileDType::kF8E4M3, {128, 64}, FileDType::kBF16, {1, 1}, "its scale x.scale is BF16 [1, 1]"},
      {FileDType::kF8E4M3, {128}, FileDType::kF8E8M0, {1}, "has two dimensions"},
      {FileDType::kI8, {4, 20}, FileDType::kF8E8M0, {4, 1}, "a multiple of 16 columns"},
      {FileDType::kI8, {4, 32}, FileDType::kF8E8M0, {4, 1}, "packed FP4 needs a scale F8_E8M0 or F32 [4, 2]"},
      {FileDType::kF8E8M0, {4, 32}, FileDType::kF8E8M0, {4, 1}, "x.weight is F8_E8M0 [4, 32]; expected"},
  };
  for (const auto& bad : cases) {
    const Held weight("x.weight", bad.dtype, bad.shape), scale("x.scale", bad.scale_dtype, bad.scale_shape);
    EXPECT_THAT(error_of([&] { encoded_tensor(weight, &scale); }),
                AllOf(HasSubstr("corrupt"), HasSubstr("x.weight"), HasSubstr(bad.message)));
  }
  EXPECT_THAT(error_of([&] {
                encoded_tensor(Held("x.weight", FileDType::kF8E4M3, {2, 2}), nullptr);
              }),
              AllOf(HasSubstr("has no scale"), HasSubstr("[1, 1]")));
}

TEST(EncodingTest, LowNibbleIsTheEvenColumn) {
  Held weight("w.weight", FileDType::kI8, {2, 16}), scale("w.scale", FileDType::kF8E8M0, {2, 1});
  scale.at(0) = 127, scale.at(1) = 130;
  weight.at(0) = 0x91;
  weight.at(16 + 15) = 0x7E;
  const auto values = decode(encoded_tensor(weight, &scale));
  EXPECT_EQ(values[0], 0.5f);
  EXPECT_EQ(values[1], -0.5f);
  EXPECT_EQ(values[32 + 30], -4.0f * 8);
  EXPECT_EQ(values[32 + 31], 6.0f * 8);
}

TEST(EncodingTest, EveryFp8BlockHasItsScaleAlsoAtTheEdges) {
  Held weight("w.weight", FileDType::kF8E4M3, {130, 257}), scale("w.scale", FileDType::kF8E8M0, {2, 3});
  std::fill(weight.bytes.begin(), weight.bytes.end(), std::byte{0x38});
  for (size_t i = 0; i < 6; ++i) scale.at(i) = static_cast<uint8_t>(127 + i);
  const EncodedTensor tensor = encoded_tensor(weight, &scale);
  const auto values = decode(tensor);
  for (const auto& [row, column, exponent] :
       {std::tuple{0, 0, 0}, {127, 127, 0}, {0, 128, 1}, {127, 256, 2}, {128, 0, 3}, {129, 255, 4}, {129, 256, 5}})
    EXPECT_EQ(values[static_cast<size_t>(row * 257 + column)], std::ldexp(1.0f, exponent)) << row << " " << column;
  std::vector<double> part(257);
  decode_rows(tensor, 128, 129, part.data(), FileDType::kF64);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), values.begin() + 128 * 257));
}

// Every code under scales over the whole range of bf16: nothing is lost in bf16.
TEST(EncodingTest, PowerOfTwoScalesAreExactInBf16) {
  for (const int power : {1 + 9, 60, 127, 200, 245}) {
    Held weight("w.weight", FileDType::kF8E4M3, {1, 256}), scale("w.scale", FileDType::kF8E8M0, {1, 2});
    for (size_t i = 0; i < 256; ++i) weight.at(i) = static_cast<uint8_t>((i & 0x7F) == 0x7F ? 0 : i);
    scale.at(0) = scale.at(1) = static_cast<uint8_t>(power);
    const EncodedTensor tensor = encoded_tensor(weight, &scale);
    std::vector<bf16> narrow(256);
    std::vector<double> wide(256);
    decode_rows(tensor, 0, 1, narrow.data(), FileDType::kBF16);
    decode_rows(tensor, 0, 1, wide.data(), FileDType::kF64);
    for (size_t i = 0; i < 256; ++i) {
      EXPECT_EQ(wide[i], std::ldexp(double{e4m3_to_float(weight.at(i))}, power - 127));
      EXPECT_EQ(double{narrow[i]}, wide[i]) << power << " " << i;
    }
  }
}

TEST(EncodingTest, F32ScalesMultiplyInF32AndRoundToNearestEven) {
  Held weight("w.weight", FileDType::kF8E4M3, {1, 3}), scale("w.weight_scale_inv", FileDType::kF32, {1, 1});
  weight.at(0) = 0x39, weight.at(1) = 0x3F, weight.at(2) = 0xC5;  // 1.125, 1.875, -3.25
  scale.set_f32(0, 0.0034567f);
  const EncodedTensor tensor = encoded_tensor(weight, &scale);
  EXPECT_THAT(decode(tensor), ElementsAre(1.125f * 0.0034567f, 1.875f * 0.0034567f, -3.25f * 0.0034567f));
  std::vector<bf16> narrow(3);
  decode_rows(tensor, 0, 1, narrow.data(), FileDType::kBF16);
  EXPECT_EQ(narrow[0].bits, 0x3B7F);  // torch: (e4m3.float() * scale).bfloat16()
  EXPECT_EQ(narrow[1].bits, 0x3BD4);
  EXPECT_EQ(narrow[2].bits, 0xBC38);
}

TEST(EncodingTest, NonFiniteElementsAreCountedAndPlaced) {
  Held weight("w.weight", FileDType::kF8E4M3, {130, 130}), scale("w.scale", FileDType::kF8E8M0, {2, 2});
  std::fill(scale.bytes.begin(), scale.bytes.end(), std::byte{127});
  const EncodedTensor tensor = encoded_tensor(weight, &scale);
  EXPECT_EQ(find_non_finite(tensor, 0, 130).count, 0);
  weight.at(129 * 130 + 129) = 0xFF;
  weight.at(5 * 130 + 7) = 0x7F;
  EXPECT_EQ(find_non_finite(tensor, 0, 130).count, 2);
  EXPECT_EQ(find_non_finite(tensor, 0, 130).first, 5 * 130 + 7);
  EXPECT_EQ(find_non_finite(tensor, 6, 130).first, 129 * 130 + 129);
  EXPECT_TRUE(std::isnan(decode(tensor)[5 * 130 + 7]));
  scale.at(1) = 255;  // rows 0..127, columns 128 and 129
  EXPECT_EQ(find_non_finite(tensor, 0, 130).count, 2 + 2 * 128);
  EXPECT_EQ(find_non_finite(tensor, 0, 130).first, 128);
  Held plain("p.weight", FileDType::kF32, {2, 2});
  plain.set_f32(3, -INFINITY);
  EXPECT_EQ(find_non_finite(encoded_tensor(plain, nullptr), 0, 2).first, 3);
  Held packed("q.weight", FileDType::kI8, {1, 32}), packed_scale("q.scale", FileDType::kF32, {1, 2});
  packed_scale.set_f32(1, NAN);
  EXPECT_EQ(find_non_finite(encoded_tensor(packed, &packed_scale), 0, 1).first, 32);
}

// The scale by the bit rule: a power of two is reached exactly, one step above takes the next.
TEST(EncodingTest, ScalesAreTheSmallestPowerOfTwoThatHolds) {
  std::vector<float> row(32);
  std::byte codes[32], scale{};
  const auto fp4_scale = [&](float amax) {
    row[9] = -amax;
    EXPECT_TRUE(encode_fp4(row.data(), 1, 32, codes, &scale));
    return static_cast<int>(scale);
  };
  EXPECT_EQ(fp4_scale(6.0f), 127);
  EXPECT_EQ(fp4_scale(std::nextafter(6.0f, 9.0f)), 128);
  EXPECT_EQ(fp4_scale(3.0f), 126);
  EXPECT_EQ(fp4_scale(0.0f), 1);
  EXPECT_EQ(fp4_scale(1e-40f), 1);
  EXPECT_EQ(fp4_scale(3e38f), 253);
  const auto fp8_scale = [&](float amax) {
    row[9] = -amax;
    EXPECT_TRUE(encode_fp8(row.data(), 1, 32, FileDType::kF8E8M0, codes, &scale));
    return static_cast<int>(scale);
  };
  EXPECT_EQ(fp8_scale(448.0f), 127);
  EXPECT_EQ(fp8_scale(std::nextafter(448.0f, 500.0f)), 128);
  EXPECT_EQ(fp8_scale(7.0f), 121);
  EXPECT_EQ(fp8_scale(1.0f), 119);
  EXPECT_EQ(fp8_scale(0.0f), 1);
  float wide = 0;
  row[9] = 1.5f;
  EXPECT_TRUE(encode_fp8(row.data(), 1, 32, FileDType::kF32, codes, reinterpret_cast<std::byte*>(&wide)));
  EXPECT_EQ(wide, 1.5f / 448);
  EXPECT_EQ(codes[9], std::byte{0x7E});
  row[9] = NAN;
  EXPECT_FALSE(encode_fp4(row.data(), 1, 32, codes, &scale));
  row[9] = -INFINITY;
  EXPECT_FALSE(encode_fp8(row.data(), 1, 32, FileDType::kF8E8M0, codes, &scale));
}

// Quantising is the nearest number; quantising again changes nothing.
TEST(EncodingTest, EncodingIsIdempotent) {
  const int64_t rows = 130, columns = 288;
  const auto values = numbers(rows * columns, 5);
  for (const auto scale_dtype : {FileDType::kF8E8M0, FileDType::kF32}) {
    Held weight("w.weight", FileDType::kF8E4M3, {rows, columns}), scale("w.scale", scale_dtype, {2, 3});
    ASSERT_TRUE(encode_fp8(values.data(), rows, columns, scale_dtype, weight.bytes.data(), scale.bytes.data()));
    const auto once = decode(encoded_tensor(weight, &scale));
    float worst = 0;
    for (size_t i = 0; i < values.size(); ++i)
      if (std::fabs(values[i]) > 2) worst = std::max(worst, std::fabs(once[i] / values[i] - 1));
    EXPECT_LE(worst, 1.0f / 16);
    EXPECT_GT(worst, 0.0f);
    ASSERT_TRUE(encode_fp8(once.data(), rows, columns, scale_dtype, weight.bytes.data(), scale.bytes.data()));
    const auto twice = decode(encoded_tensor(weight, &scale));
    for (size_t i = 0; i < once.size(); ++i)
      ASSERT_NEAR(twice[i], once[i], scale_dtype == FileDType::kF32 ? 3e-7f * std::fabs(once[i]) : 0) << i;
  }
  Held weight("w.weight", FileDType::kI8, {rows, columns / 2}), scale("w.scale", FileDType::kF8E8M0, {rows, 9});
  ASSERT_TRUE(encode_fp4(values.data(), rows, columns, weight.bytes.data(), scale.bytes.data()));
  const auto once = decode(encoded_tensor(weight, &scale));
  ASSERT_TRUE(encode_fp4(once.data(), rows, columns, weight.bytes.data(), scale.bytes.data()));
  EXPECT_EQ(decode(encoded_tensor(weight, &scale)), once);
}

// Post-training page 7.9: tile scales 1, 2^-3, 2^-11 go into one FP8 block of scale 2^-6 without loss.
TEST(EncodingTest, Fp4BlocksFitIntoFp8WithoutLoss) {
  std::vector<float> values(128);
  values[0] = 6.0f, values[40] = 1.5f * 0x1p-3f, values[70] = 0.5f * 0x1p-11f, values[100] = -6.0f * 0x1p-11f;
  Held weight("w.weight", FileDType::kF8E4M3, {1, 128}), scale("w.scale", FileDType::kF8E8M0, {1, 1});
  ASSERT_TRUE(encode_fp8(values.data(), 1, 128, FileDType::kF8E8M0, weight.bytes.data(), scale.bytes.data()));
  EXPECT_EQ(scale.at(0), 127 - 6);
  EXPECT_EQ(e4m3_to_float(weight.at(0)), 384.0f);
  EXPECT_EQ(e4m3_to_float(weight.at(70)), 0x1p-6f);
  EXPECT_EQ(decode(encoded_tensor(weight, &scale)), values);
}

}  // namespace
}  // namespace temper::checkpoint
