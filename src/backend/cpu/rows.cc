// Norms, rotation and gates: each op is cut into rows, and each thread's rows go to the kernel of this machine.
#include "backend/cpu/rows.h"

#include <algorithm>

#include "backend/cpu/cpu_internal.h"
#include "backend/cpu/scratch.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

// Rows of D channels with unit stride inside; returns the stride between rows.
int64_t row_stride(const View& x_RD) {
  CHECK(x_RD.rank() == 2 && (x_RD.strides[1] == 1 || x_RD.dim(1) <= 1), x_RD.to_string());
  return x_RD.strides[0];
}
Reals strided_reals(const View& x) {
  CHECK(x.dtype == DType::kBF16 || x.dtype == DType::kF32, x.to_string());
  return {x.raw(), x.dtype == DType::kBF16};
}

void rmsnorm_forward(Stream* stream, Out y_RD, Out rstd_R, In x_RD, In w_D, double eps) {
  if (any_f64(y_RD, rstd_R, x_RD, w_D)) {
    return cpu_reference().ops.rmsnorm_forward(stream, y_RD, rstd_R, x_RD, w_D, eps);
  }
  const int64_t R = x_RD.dim(0), D = x_RD.dim(1), stride = row_stride(x_RD);
  CHECK(y_RD.shape == x_RD.shape && rstd_R.size() == R && (!w_D.defined() || w_D.size() == D), y_RD.to_string(), R, D);
  const Reals y = reals(y_RD), x = strided_reals(x_RD);
  float *rstd = floats(rstd_R), *w = floats(w_D);
  parallel_for(R, row_grain(D), [&](int64_t begin, int64_t end, int) {
    row_kernels().rmsnorm_forward(y.at(begin * D), rstd + begin, x.at(begin * stride), stride, w, end - begin, D,
                                  static_cast<float>(eps));
  });
}

void rmsnorm_backward(Stream* stream, Out dx_RD, InOut dw_D, In dy_RD, In x_RD, In rstd_R, In w_D) {
  if (any_f64(dx_RD, dw_D, dy_RD, x_RD, rstd_R, w_D)) {
    return cpu_reference().ops.rmsnorm_backward(stream, dx_RD, dw_D, dy_RD, x_RD, rstd_R, w_D);
  }
  const int64_t R = x_RD.dim(0), D = x_RD.dim(1), stride = row_stride(x_RD);
  CHECK(dx_RD.shape == x_RD.shape && dy_RD.shape == x_RD.shape && rstd_R.size() == R, dx_RD.to_string(), R, D);
  CHECK(w_D.defined() || !dw_D.defined(), dw_D.to_string());
  CHECK((!w_D.defined() || w_D.size() == D) && (!dw_D.defined() || dw_D.size() == D), w_D.to_string(), D);
  const Reals dx = reals(dx_RD), dy = reals(dy_RD), x = strided_reals(x_RD);
  const float *rstd = floats(rstd_R), *w = floats(w_D);
  // dw is summed over blocks of rows that do not depend on the number of threads, then over blocks in order. A weight
  // without dw (a frozen one) still needs the block's sums as a place to write.
  constexpr int64_t kBlockRows = 128;
  const int64_t num_blocks = (R + kBlockRows - 1) / kBlockRows;
  float* parts = w != nullptr ? static_cast<float*>(shared_scratch(num_blocks * D * 4)) : nullptr;
  parallel_for(num_blocks, row_grain(D * kBlockRows), [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block * kBlockRows;
      row_kernels().rmsnorm_backward(dx.at(row * D), parts != nullptr ? parts + block * D : nullptr, dy.at(row * D),
                                     x.at(row * stride), stride, rstd + row, w, std::min(kBlockRows, R - row), D);
    }
  });
  if (!dw_D.defined()) return;
  for (int64_t block = 0; block < num_blocks; ++block) {
    row_kernels().add(reals(dw_D), {parts + block * D, false}, 1, D);
  }
}

void rope(Stream* stream, Out y_TNH, In x_TNH, In cos_sin_LP2, In position_T, double sign) {
  if (any_f64(y_TNH, x_TNH, cos_sin_LP2)) {
    return cpu_reference().ops.rope(stream, y_TNH, x_TNH, cos_sin_LP2, position_T, sign);
  }
  const int64_t T = x_TNH.dim(0), N = x_TNH.dim(1), H = x_TNH.dim(2);
  const int64_t L = cos_sin_LP2.dim(0), P = cos_sin_LP2.dim(1);
  CHECK(2 * P <= H && (sign == 1 || sign == -1) && y_TNH.shape == x_TNH.shape && position_T.size() == T, P, H, sign);
  CHECK(x_TNH.strides[2] == 1 && y_TNH.strides[2] == 1, x_TNH.to_string());
  const Reals y = strided_reals(y_TNH), x = strided_reals(x_TNH);
  const float* cos_sin = floats(cos_sin_LP2);
  const int32_t* position = position_T.data<int32_t>();
  parallel_for(T, row_grain(N * H), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) CHECK(position[t] >= 0 && position[t] < L, t, position[t], L);
    row_kernels().rope({y.at(begin * y_TNH.strides[0]), y_TNH.strides[0], y_TNH.strides[1]},
                       {x.at(begin * x_TNH.strides[0]), x_TNH.strides[0], x_TNH.strides[1]}, cos_sin, position + begin,
                       static_cast<float>(sign), end - begin, N, H, P);
  });
}

void swiglu_forward(Stream* stream, Out a_RF, In gu_RG, In w_R, double limit) {
  if (any_f64(a_RF, gu_RG, w_R)) return cpu_reference().ops.swiglu_forward(stream, a_RF, gu_RG, w_R, limit);
  const int64_t R = a_RF.dim(0), F = a_RF.dim(1);
  CHECK(gu_RG.dim(0) == R && gu_RG.dim(1) == 2 * F && (!w_R.defined() || w_R.size() == R), gu_RG.to_string(), R, F);
  const Reals a = reals(a_RF), gu = reals(gu_RG);
  const float* w = floats(w_R);
  parallel_for(R, row_grain(4 * F), [&](int64_t begin, int64_t end, int) {
    row_kernels().swiglu_forward(a.at(begin * F), gu.at(begin * 2 * F), w != nullptr ? w + begin : nullptr, end - begin,
                                 F, static_cast<float>(limit));
  });
}

void swiglu_backward(Stream* stream, Out dgu_RG, Out dw_R, Out a_RF, In da_RF, In gu_RG, In w_R, double limit) {
  const bool one_dtype = dgu_RG.dtype == gu_RG.dtype && a_RF.dtype == gu_RG.dtype && da_RF.dtype == gu_RG.dtype;
  if (any_f64(dgu_RG, dw_R, a_RF, da_RF, gu_RG, w_R) || !one_dtype) {
    return cpu_reference().ops.swiglu_backward(stream, dgu_RG, dw_R, a_RF, da_RF, gu_RG, w_R, limit);
  }
  const int64_t R = a_RF.dim(0), F = a_RF.dim(1);
  CHECK(w_R.defined() == dw_R.defined() && da_RF.shape == a_RF.shape, w_R.to_string(), dw_R.to_string());
  CHECK(gu_RG.dim(0) == R && gu_RG.dim(1) == 2 * F && dgu_RG.shape == gu_RG.shape, gu_RG.to_string(), R, F);
  CHECK(!w_R.defined() || (w_R.size() == R && dw_R.size() == R), w_R.to_string(), R);
  const Reals dgu = reals(dgu_RG), a = reals(a_RF), da = reals(da_RF), gu = reals(gu_RG);
  float *dw = floats(dw_R), *w = floats(w_R);
  parallel_for(R, row_grain(6 * F), [&](int64_t begin, int64_t end, int) {
    row_kernels().swiglu_backward(dgu.at(begin * 2 * F), dw != nullptr ? dw + begin : nullptr, a.at(begin * F),
                                  da.at(begin * F), gu.at(begin * 2 * F), w != nullptr ? w + begin : nullptr,
                                  end - begin, F, static_cast<float>(limit));
  });
}

void swiglu_clamp_counts(Stream* stream, InOut count_3, In gu_RG, In index_R, double limit) {
  if (any_f64(gu_RG)) return cpu_reference().ops.swiglu_clamp_counts(stream, count_3, gu_RG, index_R, limit);
  const int64_t R = gu_RG.dim(0), F = gu_RG.dim(1) / 2;
  CHECK(limit > 0 && count_3.size() == 3 && (!index_R.defined() || index_R.size() == R), gu_RG.to_string(), limit);
  const Reals gu = reals(gu_RG);
  const int32_t* index = index_R.defined() ? index_R.data<int32_t>() : nullptr;
  constexpr int64_t kBlockRows = 128;
  const int64_t num_blocks = (R + kBlockRows - 1) / kBlockRows;
  auto* block_counts = static_cast<int32_t*>(shared_scratch(num_blocks * 3 * 4));
  parallel_for(num_blocks, row_grain(F * kBlockRows), [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block * kBlockRows;
      row_kernels().swiglu_clamp_counts(block_counts + 3 * block, gu.at(row * 2 * F), index ? index + row : nullptr,
                                        std::min(kBlockRows, R - row), F, static_cast<float>(limit));
    }
  });
  auto* count = count_3.data<int64_t>();
  for (int64_t i = 0; i < 3 * num_blocks; ++i) count[i % 3] += block_counts[i];
}

}  // namespace

void register_rows(OpTable& ops) {
  ops.rmsnorm_forward = rmsnorm_forward;
  ops.rmsnorm_backward = rmsnorm_backward;
  ops.rope = rope;
  ops.swiglu_forward = swiglu_forward;
  ops.swiglu_backward = swiglu_backward;
  ops.swiglu_clamp_counts = swiglu_clamp_counts;
  register_movement_rows(ops);
  register_loss_rows(ops);
  register_optimizer_rows(ops);
}

}  // namespace temper::backend
