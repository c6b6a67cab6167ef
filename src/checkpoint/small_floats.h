// The number formats of quantised checkpoints, by their codes (architecture page 10.3).
//   e4m3  s eeee mmm, bias 7, no infinity, 0x7F and 0xFF are NaN, largest 448
//   e2m1  s ee m in the low four bits, bias 1: 0, 0.5, 1, 1.5, 2, 3, 4, 6
//   e8m0  2^(code - 127), 255 is NaN
// To a code: nearest, ties to the even code, clamped to the largest value; the sign of zero stays. The value must be
// finite.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace temper::checkpoint {

inline float e4m3_to_float(uint8_t code) {
  const int exponent = (code >> 3) & 15, mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

inline float e2m1_to_float(uint8_t code) {
  constexpr float kMagnitudes[] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  return code & 8 ? -kMagnitudes[code & 7] : kMagnitudes[code & 7];
}

inline float e8m0_to_float(uint8_t code) {
  if (code == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(code == 0 ? 1u << 22 : uint32_t{code} << 23);  // 2^-127 is subnormal
}

// The code of a sign, kExponent bits and kMantissa bits that is nearest to value, clamped to +-largest.
template <int kExponent, int kMantissa>
uint32_t round_to_code(float value, float largest) {
  constexpr int kBias = (1 << (kExponent - 1)) - 1, kDropped = 23 - kMantissa;
  constexpr uint32_t kSmallestNormal = static_cast<uint32_t>(128 - kBias) << 23;
  // The last place of a number of this size is the subnormal step of the small format: adding it rounds to whole steps.
  constexpr uint32_t kPlace = static_cast<uint32_t>(128 - kBias + kDropped) << 23;
  const uint32_t sign = std::bit_cast<uint32_t>(value) >> 31;
  const uint32_t bits = std::min(std::bit_cast<uint32_t>(value) & 0x7FFFFFFFu, std::bit_cast<uint32_t>(largest));
  const uint32_t tiny = std::bit_cast<uint32_t>(std::bit_cast<float>(bits) + std::bit_cast<float>(kPlace)) - kPlace;
  const uint32_t rounded = bits + (1u << (kDropped - 1)) - 1 + ((bits >> kDropped) & 1u);
  const uint32_t normal = (rounded >> kDropped) - (static_cast<uint32_t>(127 - kBias) << kMantissa);
  return (sign << (kExponent + kMantissa)) | (bits < kSmallestNormal ? tiny : normal);
}

inline uint8_t float_to_e4m3(float value) { return static_cast<uint8_t>(round_to_code<4, 3>(value, 448.0f)); }
inline uint8_t float_to_e2m1(float value) { return static_cast<uint8_t>(round_to_code<2, 1>(value, 6.0f)); }

}  // namespace temper::checkpoint
