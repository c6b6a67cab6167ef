// A typed, strided window on device memory. Owns nothing; cheap to copy.
//
// The pointer is base + offset * element size; base is what the device's alloc returned, which some vendors want apart.
// Dims and strides count elements; dim 0 is the slowest. Shape names of variables follow docs/notation.md.
#pragma once

#include <array>
#include <initializer_list>
#include <span>
#include <string>

#include "base/check.h"
#include "tensor/dtype.h"

namespace temper {

class Shape {
 public:
  static constexpr int kMaxRank = 5;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    CHECK(dims.size() <= kMaxRank, dims.size());
    for (int64_t dim : dims) dims_[rank_++] = dim;
  }
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t& operator[](int i) { return dims_[i]; }
  void push_back(int64_t dim) {
    CHECK(rank_ < kMaxRank);
    dims_[rank_++] = dim;
  }
  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[i];
    return n;
  }
  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if (dims_[i] != other.dims_[i]) return false;
    return true;
  }
  std::string to_string() const;  // "[3, 4]"

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

struct View {
  void* base = nullptr;
  int64_t offset = 0;
  DType dtype = DType::kNone;
  Shape shape;
  std::array<int64_t, Shape::kMaxRank> strides{};

  View() = default;
  // A contiguous tensor at base.
  View(void* base, DType dtype, Shape shape, int64_t offset = 0);

  bool defined() const { return dtype != DType::kNone; }
  int rank() const { return shape.rank(); }
  int64_t dim(int i) const { return shape[i]; }
  int64_t size() const { return defined() ? shape.size() : 0; }
  int64_t num_bytes() const { return size() * dtype_bytes(dtype); }
  bool contiguous() const;

  // Raw pointer to the first element, without a type check (for memcpy and vendor calls).
  void* raw() const { return static_cast<char*>(base) + offset * dtype_bytes(dtype); }
  template <class T>
  T* data() const {
    CHECK(kDTypeOf<T> == dtype, dtype_name(kDTypeOf<T>), dtype_name(dtype));
    return static_cast<T*>(raw());
  }

  // Elements [begin, end) of one dim; the others whole.
  View slice(int dim, int64_t begin, int64_t end) const;
  View rows(int64_t begin, int64_t end) const { return slice(0, begin, end); }
  View first(int64_t count) const { return slice(0, 0, count); }
  // Same elements under another shape; only for contiguous views.
  View reshape(Shape to) const;
  // Swaps two dims without moving data.
  View transpose(int a, int b) const;
  View t() const { return transpose(rank() - 2, rank() - 1); }

  std::string to_string() const;  // "bf16[3, 4]"
};

}  // namespace temper
