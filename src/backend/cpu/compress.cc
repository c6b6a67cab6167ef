// Compressed entries on the CPU: splits entries over threads and calls the kernels of the best instruction level. f64
// operands go to the scalar reference.
#include "backend/cpu/compress.h"

#include "backend/cpu/cpu_internal.h"

#define TEMPER_KERNELS "backend/cpu/compress_kernels.inc"
#include "backend/cpu/tile_for_each_isa.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

constexpr int64_t kSlices = 32;  // of the sum over entries

CompressOperands compress_operands(const View& z_TZ, const View& g_TZ, const View& ape_mZ, const CompressRanges& ranges,
                                   int64_t head_dim) {
  const int64_t width = z_TZ.dim(1);
  CHECK(width == head_dim || width == 2 * head_dim, width, head_dim);
  CHECK(ape_mZ.dim(0) == ranges.rate && ape_mZ.dim(1) == width, ape_mZ.to_string(), ranges.rate, width);
  return {.z = z_TZ.data<float>(),
          .g = g_TZ.data<float>(),
          .ape = ape_mZ.data<float>(),
          .row = ranges.row_C.data<int32_t>(),
          .prev_row = width == head_dim ? nullptr : ranges.prev_row_C.data<int32_t>(),
          .rate = ranges.rate,
          .head_dim = head_dim,
          .width = width,
          .v = nullptr,
          .dv = nullptr,
          .dz = nullptr,
          .dg = nullptr};
}

void compress_forward(Stream* stream, Out v_CH, In z_TZ, In g_TZ, In ape_mZ, CompressRanges ranges) {
  if (z_TZ.dtype != DType::kF32) return cpu_reference().ops.compress_forward(stream, v_CH, z_TZ, g_TZ, ape_mZ, ranges);
  CompressOperands operands = compress_operands(z_TZ, g_TZ, ape_mZ, ranges, v_CH.dim(1));
  operands.v = v_CH.raw();
  const auto kernel = v_CH.dtype == DType::kF32 ? TEMPER_BEST_ISA(compress_forward_entries<float>)
                                                : TEMPER_BEST_ISA(compress_forward_entries<bf16>);
  parallel_for(v_CH.dim(0), 1, [&](int64_t begin, int64_t end, int) { kernel(begin, end, operands); });
}

// Zeroes channels [first, first + count) of the rows of dz and dg that no window of `rows` covers.
template <class T>
void zero_uncovered(const CompressOperands& p, int64_t num_tokens, const int32_t* rows, int64_t num_windows,
                    int64_t first, int64_t count) {
  std::vector<bool> covered(num_tokens);
  for (int64_t e = 0; e < num_windows; ++e) {
    for (int64_t o = 0; o < p.rate && rows[e] >= 0; ++o) covered[rows[e] + o] = true;
  }
  for (int64_t t = 0; t < num_tokens; ++t) {
    if (covered[t]) continue;
    std::fill_n(static_cast<T*>(p.dz) + t * p.width + first, count, T(0.0f));
    std::fill_n(static_cast<T*>(p.dg) + t * p.width + first, count, T(0.0f));
  }
}

void compress_backward(Stream* stream, Out dz_TZ, Out dg_TZ, InOut dape_mZ, In dv_CH, In z_TZ, In g_TZ, In ape_mZ,
                       CompressRanges ranges) {
  if (z_TZ.dtype != DType::kF32)
    return cpu_reference().ops.compress_backward(stream, dz_TZ, dg_TZ, dape_mZ, dv_CH, z_TZ, g_TZ, ape_mZ, ranges);
  const int64_t num_entries = dv_CH.dim(0), num_tokens = z_TZ.dim(0);
  CompressOperands operands = compress_operands(z_TZ, g_TZ, ape_mZ, ranges, dv_CH.dim(1));
  operands.dv = dv_CH.data<float>();
  operands.dz = dz_TZ.raw();
  operands.dg = dg_TZ.raw();
  const int64_t dim = operands.head_dim;
  const auto zero = dz_TZ.dtype == DType::kF32 ? zero_uncovered<float> : zero_uncovered<bf16>;
  if (operands.prev_row != nullptr) zero(operands, num_tokens, operands.prev_row, num_entries, 0, dim);
  zero(operands, num_tokens, operands.row, num_entries, operands.width - dim, dim);

  // dape is summed in slices (also where it is not asked for), then in their order: as many on any number of threads.
  const int64_t size = ape_mZ.size(), num_slices = std::min(kSlices, num_entries);
  float* slices = call_floats(size * num_slices);
  const auto kernel = dz_TZ.dtype == DType::kF32 ? TEMPER_BEST_ISA(compress_backward_entries<float>)
                                                 : TEMPER_BEST_ISA(compress_backward_entries<bf16>);
  parallel_for(num_slices, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t s = begin; s < end; ++s) {
      std::fill_n(slices + s * size, size, 0.0f);
      kernel(num_entries * s / num_slices, num_entries * (s + 1) / num_slices, operands, slices + s * size);
    }
  });
  if (!dape_mZ.defined()) return;
  float* dape = dape_mZ.data<float>();
  parallel_for(size, 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t s = 0; s < num_slices; ++s) {
      for (int64_t i = begin; i < end; ++i) dape[i] += slices[s * size + i];
    }
  });
}

}  // namespace

void register_compress(OpTable& ops) {
  ops.compress_forward = compress_forward;
  ops.compress_backward = compress_backward;
}

}  // namespace temper::backend
