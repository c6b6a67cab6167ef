// Elementary functions of f32 and bf16 conversions as straight code without branches or calls, so that the loops that
// call them become vector loops at every instruction level.
//
// All are forced inline: a copy of their own would belong to one level and could be linked into another. Errors are the
// largest found against double precision over all f32 arguments in range, in units of the last place (ulp) of the
// result.
#pragma once

#include <cstdint>

namespace temper::backend {

#define TEMPER_VECTOR_MATH static inline __attribute__((always_inline))

TEMPER_VECTOR_MATH float bits_to_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }
TEMPER_VECTOR_MATH uint32_t float_to_bits(float value) { return __builtin_bit_cast(uint32_t, value); }

TEMPER_VECTOR_MATH float bf16_to_f32(uint16_t bits) { return bits_to_float(static_cast<uint32_t>(bits) << 16); }

// Rounds to nearest even; NaN stays NaN.
TEMPER_VECTOR_MATH uint16_t f32_to_bf16(float value) {
  const uint32_t u = float_to_bits(value);
  const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
  const uint32_t nan = (u >> 16) | 0x40u;
  return static_cast<uint16_t>((u & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

// e^x. Error <= 1.01 ulp; below -104 it is 0, above 88.73 infinity, subnormal results are kept, NaN stays NaN.
// x = n ln 2 + r, |r| <= ln 2 / 2; e^r by a polynomial (Cephes, Moshier 1992), 2^n by the exponent field in two halves,
// since n may be 128 or below -126.
TEMPER_VECTOR_MATH float vector_exp(float x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves round(x) in the low bits
  x = x > 89.0F ? 89.0F : x;
  x = x < -105.0F ? -105.0F : x;
  const float shifted = x * 1.44269504F + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = (p * r) * r + r + 1.0F;
  const uint32_t power = float_to_bits(shifted) - 0x4B400000u;  // n, two's complement
  const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(power) >> 1);
  return p * bits_to_float((half + 127u) << 23) * bits_to_float((power - half + 127u) << 23);
}

// Natural logarithm. Error <= 1 ulp; 0 gives -infinity, negative arguments NaN; subnormal arguments are exact too.
// x = 2^e m, m in [sqrt(1/2), sqrt(2)); log m by a polynomial (Cephes).
TEMPER_VECTOR_MATH float vector_log(float x) {
  const bool subnormal = x < 1.17549435e-38F;
  const uint32_t u = float_to_bits(subnormal ? x * 8388608.0F : x);
  // Subtracting the bits of sqrt(1/2) moves the border between exponents to it.
  const uint32_t above = u - 0x3F3504F3u;
  const float e = static_cast<float>(static_cast<int32_t>(above) >> 23) - (subnormal ? 23.0F : 0.0F);
  const float m = bits_to_float((above & 0x007FFFFFu) + 0x3F3504F3u) - 1.0F;
  float p = 7.0376836292e-2F;
  p = p * m - 1.1514610310e-1F;
  p = p * m + 1.1676998740e-1F;
  p = p * m - 1.2420140846e-1F;
  p = p * m + 1.4249322787e-1F;
  p = p * m - 1.6668057665e-1F;
  p = p * m + 2.0000714765e-1F;
  p = p * m - 2.4999993993e-1F;
  p = p * m + 3.3333331174e-1F;
  const float square = m * m;
  const float small = m * square * p + e * -2.12194440e-4F - 0.5F * square;
  const float result = (m + small) + e * 0.693359375F;
  const float special = x == 0.0F ? bits_to_float(0xFF800000u) : (x < 0.0F ? bits_to_float(0x7FC00000u) : x);
  return x > 0.0F && x < bits_to_float(0x7F800000u) ? result : special;
}

// 1 / (1 + e^-x). Error <= 2 ulp; below -88.7 it is 0.
TEMPER_VECTOR_MATH float vector_sigmoid(float x) { return 1.0F / (1.0F + vector_exp(-x)); }

}  // namespace temper::backend
