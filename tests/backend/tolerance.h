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
// bf16 outputs of f32 arithmetic, rounded once: half a unit in the last place is at most 2^-8 of the value. The second
// number is the f32 error, which may tip the rounding and is all there is where the result cancels.
inline constexpr Tolerance kBf16{1.0 / 256, 1e-4};
// Attention in bf16 may round probabilities and their gradients to bf16 before the second product, as the released
// model does (architecture page 8.1); its f32 outputs carry that error too: up to 2^-8 a term, before the rounding of
// the output.
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
  return kF32;
}

}  // namespace temper::backend::test
