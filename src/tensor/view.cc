#include "tensor/view.h"

#include <utility>

namespace temper {

std::string Shape::to_string() const {
  std::string out = "[";
  for (int i = 0; i < rank_; ++i) out += (i ? ", " : "") + std::to_string(dims_[i]);
  return out + "]";
}

View::View(void* base_in, DType dtype_in, Shape shape_in, int64_t offset_in)
    : base(base_in), offset(offset_in), dtype(dtype_in), shape(shape_in) {
  int64_t stride = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= shape[i];
  }
}

bool View::contiguous() const {
  int64_t stride = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[i] != stride) return false;
    stride *= shape[i];
  }
  return true;
}

View View::slice(int dim, int64_t begin, int64_t end) const {
  CHECK(dim < rank() && 0 <= begin && begin <= end && end <= shape[dim], dim, begin, end, to_string());
  View out = *this;
  out.offset += begin * strides[dim];
  out.shape[dim] = end - begin;
  return out;
}

View View::reshape(Shape to) const {
  CHECK(contiguous() && to.size() == shape.size(), to_string(), to.to_string());
  return View(base, dtype, to, offset);
}

View View::transpose(int a, int b) const {
  CHECK(a >= 0 && b >= 0 && a < rank() && b < rank(), a, b, to_string());
  View out = *this;
  std::swap(out.shape[a], out.shape[b]);
  std::swap(out.strides[a], out.strides[b]);
  return out;
}

std::string View::to_string() const { return dtype_name(dtype) + shape.to_string(); }

}  // namespace temper
