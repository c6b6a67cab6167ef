// How far an op may be from the exact result: the table that docs/numerics.md explains.
//
// The judge is the scalar reference in f64 on the same inputs, which are exactly representable in the tested dtypes; so
// the whole difference is the tested backend's own rounding. An element passes when
//   |got - want| <= relative * |want| + of_rms * rms(want)          rms over the whole operand
#pragma once

#include "backend/ops.h"
#include "layers/ctx.h"

namespace temper::backend::test {

struct Tolerance {
  double relative, of_rms;
};

// f32 outputs: sums of up to a few thousand terms in any order, vector exp and log of a few units in the last place.
inline constexpr Tolerance kF32{1e-5, 1e-5};
// Gradients through 2 * iters - 1 Sinkhorn steps, each of which takes a small difference of large numbers.
inline constexpr Tolerance kF32Sinkhorn{2e-5, 1e-4};
// bf16 outputs of f32 arithmetic, rounded once: half a unit in the last place is 2^-9, doubled for the f32 error that
// can tip the rounding; the second number is the f32 error where the result cancels.
inline constexpr Tolerance kBf16{1.0 / 256, 1e-4};
// Attention in bf16 may round probabilities and their gradients to bf16 before the second product, as the released
// model does (architecture page 8.1), in its f32 outputs too: 2^-9 a term.
inline constexpr Tolerance kBf16Attention{1.0 / 128, 1.0 / 128};
// Its backward sums hundreds of such terms; the largest rows (the first keys of a document, which few queries share)
// are several times the rms of the operand, and so is the error where they cancel: 4 of 8256 elements reach 1.3 / 128.
inline constexpr Tolerance kBf16AttentionBackward{1.0 / 128, 1.0 / 64};
// f64 outputs (the global norm): sums in another order.
inline constexpr Tolerance kF64{1e-12, 1e-12};

// Integer outputs must be equal.
inline Tolerance tolerance(OpId op, layers::Precision run, DType output) {
  if (output == DType::kF64) return kF64;
  if (run == layers::Precision::kBf16 && op == OpId::attention_forward) return kBf16Attention;
  if (run == layers::Precision::kBf16 && op == OpId::attention_backward) return kBf16AttentionBackward;
  if (output == DType::kBF16) return kBf16;
  if (op == OpId::hc_coefficients_backward) return kF32Sinkhorn;
  return kF32;
}

}  // namespace temper::backend::test
