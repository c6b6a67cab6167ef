// Reading tensors on the host, wherever they are and however they are strided.
#pragma once

#include <algorithm>
#include <vector>

#include "layers/ctx.h"

namespace temper::train {

// Elements from the first to the last of a View, in memory order.
inline int64_t span_elements(const View& view) {
  if (view.size() == 0) return 0;
  int64_t last = 0;
  for (int d = 0; d < view.rank(); ++d) last += (view.dim(d) - 1) * view.strides[d];
  return last + 1;
}

// The bytes of a tensor, brought to the host; view() has its shape and strides there.
class HostCopy {
 public:
  HostCopy(const layers::Ctx& ctx, const View& view) : view_(view) {
    const int64_t num_elements = span_elements(view);
    bytes_.resize(num_elements * dtype_bytes(view.dtype));
    view_.base = bytes_.data(), view_.offset = 0;
    if (num_elements > 0)
      ctx.device.copy_to_host(ctx.stream, bytes_.data(), View(view.base, view.dtype, {num_elements}, view.offset));
  }
  HostCopy(const HostCopy&) = delete;
  HostCopy& operator=(const HostCopy&) = delete;

  const View& view() const { return view_; }

 private:
  std::vector<char> bytes_;
  View view_;
};

// An element of a host tensor of floats, at a distance from its first.
inline double float_at(const View& view, int64_t offset) {
  switch (view.dtype) {
    case DType::kF64:
      return view.data<double>()[offset];
    case DType::kF32:
      return view.data<float>()[offset];
    case DType::kBF16:
      return view.data<bf16>()[offset];
    default:
      return 0;
  }
}

inline bool is_float(const View& view) {
  return view.dtype == DType::kF64 || view.dtype == DType::kF32 || view.dtype == DType::kBF16;
}

}  // namespace temper::train
