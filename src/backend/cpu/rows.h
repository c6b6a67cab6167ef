// Row kernels: what one thread does with a range of rows or elements, made for each instruction level from one source
// (rows_kernels.inc). Equations stand in ops.def, the scalar truth in reference_rows.cc.
#pragma once

#include <cstdint>

#include "backend/ops.h"

namespace temper::backend {

// Elements that are f32 or bf16.
struct Reals {
  void* data = nullptr;
  bool is_bf16 = false;

  explicit operator bool() const { return data != nullptr; }
  Reals at(int64_t element) const { return {static_cast<char*>(data) + element * (is_bf16 ? 2 : 4), is_bf16}; }
};

// Rows of H channels for every token and head.
struct Heads {
  Reals first;
  int64_t token_stride, head_stride;  // in elements
};

struct AdamwFactors {
  float grad_scale, beta1, beta2;
  float keep;                // 1 - lr * decay
  float rate;                // lr / (1 - beta1^step)
  float inverse_correction;  // 1 / sqrt(1 - beta2^step)
  float eps;
};

// Rows are dense unless a stride (in elements) is given. Pointers named `part` receive sums of this call's rows alone.
struct RowKernels {
  void (*copy)(Reals y, Reals x, int64_t count);
  void (*add)(Reals y, Reals x, float alpha, int64_t count);
  void (*rmsnorm_forward)(Reals y, float* rstd, Reals x, int64_t x_stride, const float* w, int64_t rows, int64_t D,
                          float eps);
  // dw_part: null or D sums, overwritten.
  void (*rmsnorm_backward)(Reals dx, float* dw_part, Reals dy, Reals x, int64_t x_stride, const float* rstd,
                           const float* w, int64_t rows, int64_t D);
  // cos_sin holds P pairs for each position.
  void (*rope)(Heads y, Heads x, const float* cos_sin, const int32_t* position, float sign, int64_t tokens,
               int64_t heads, int64_t H, int64_t P);
  void (*swiglu_forward)(Reals a, Reals gu, const float* w, int64_t rows, int64_t F, float limit);
  // dw: null or one per row.
  void (*swiglu_backward)(Reals dgu, float* dw, Reals a, Reals da, Reals gu, const float* w, int64_t rows, int64_t F,
                          float limit);
  // counts: gate above limit, up above it, up below its negative, of the rows whose index is not negative (null: all).
  void (*swiglu_clamp_counts)(int32_t* counts, Reals gu, const int32_t* index, int64_t rows, int64_t F, float limit);
  // y = base + the K rows of x, each D long, in order; base may be undefined.
  void (*combine)(Reals y, Reals x, const int32_t* x_rows, int64_t K, Reals base, int64_t D);
  // Returns log sum exp of a row and its first largest element.
  float (*log_sum_exp)(const float* logits, int64_t V, int64_t* best);
  // dlogits = -g exp(logit - lse): without the target's one, which the caller adds.
  void (*softmax_backward)(Reals dlogits, const float* logits, float lse, float g, int64_t V);
  double (*sum_squares)(const float* x, int64_t count);
  // squares: sums over these elements of the squared change of master, and of the squared new master.
  void (*adamw)(float* master, float* m, float* v, Reals value, double* squares, const float* grad,
                const AdamwFactors& by, int64_t count);
};

// Those of this machine (rows_levels.cc).
const RowKernels& row_kernels();

// Parts of register_rows.
void register_movement_rows(OpTable& ops);   // rows_movement.cc: fill, copy, add, gather, scatter, embedding, combine
void register_loss_rows(OpTable& ops);       // rows_loss.cc: logprob_*
void register_optimizer_rows(OpTable& ops);  // rows_optimizer.cc: sum_squares, adamw

// --- for the files that implement those -----------------------------------------------------------------------------

// True if one of the views is f64: then the scalar reference does the op.
template <class... Views>
bool any_f64(const Views&... views) {
  return ((views.dtype == DType::kF64) || ...);
}

// A contiguous operand's elements; null for an undefined one.
inline Reals reals(const View& view) {
  if (!view.defined()) return {};
  CHECK(view.contiguous() && (view.dtype == DType::kBF16 || view.dtype == DType::kF32), view.to_string());
  return {view.raw(), view.dtype == DType::kBF16};
}
inline float* floats(const View& view) { return view.defined() ? static_cast<float*>(reals(view).data) : nullptr; }

// Rows per thread below which a fork does not pay, for rows of so many elements.
inline int64_t row_grain(int64_t elements_per_row) { return 16 * 1024 / (elements_per_row + 1) + 1; }

}  // namespace temper::backend
