#include "verify/storage.h"

#include <algorithm>

#include "verify/difference.h"

namespace temper::verify {
namespace {

bool is_integral(const View& view) { return view.dtype == DType::kI32 || view.dtype == DType::kI64; }

}  // namespace

View Storage::zeros(DType dtype, Shape shape) {
  blocks_.emplace_back(static_cast<size_t>(std::max<int64_t>(1, shape.size() * dtype_bytes(dtype))));
  return {blocks_.back().data(), dtype, shape};
}

View Storage::copy(const View& view) {
  const View out = zeros(is_integral(view) ? view.dtype : DType::kF64, view.shape);
  const std::vector<double> values = to_doubles(view);
  for (size_t i = 0; i < values.size(); ++i) {
    if (view.dtype == DType::kI32)
      out.data<int32_t>()[i] = static_cast<int32_t>(values[i]);
    else if (view.dtype == DType::kI64)
      out.data<int64_t>()[i] = static_cast<int64_t>(values[i]);
    else
      out.data<double>()[i] = values[i];
  }
  return out;
}

}  // namespace temper::verify
