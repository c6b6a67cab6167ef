// Tools of the scalar reference: every op written as its equation, in one arithmetic type A (double when any operand of
// the call is f64, else float).
//
// An op loads its operands whole into Arrays of A, computes, and stores the results: dtypes may mix, views may have any
// strides and alias each other, and what is read is never what was just written. Clarity over speed: this is the judge.
#pragma once

#include <cmath>
#include <type_traits>
#include <vector>

#include "backend/ops.h"

namespace temper::backend {

void register_reference_movement(OpTable& ops);
void register_reference_products(OpTable& ops);
void register_reference_rows(OpTable& ops);
void register_reference_hyper(OpTable& ops);
void register_reference_attention(OpTable& ops);
void register_reference_indexer(OpTable& ops);
void register_reference_moe(OpTable& ops);
void register_reference_optimizer(OpTable& ops);

namespace reference {

// A dense array of up to four dims, indexed x(i, j, ...); dim 0 is the slowest.
template <class A>
class Array {
 public:
  explicit Array(Shape shape, A value = A{0}) : shape_(shape), values_(static_cast<size_t>(shape.size()), value) {}
  int64_t dim(int i) const { return shape_[i]; }
  const Shape& shape() const { return shape_; }
  int64_t size() const { return static_cast<int64_t>(values_.size()); }
  A* data() { return values_.data(); }
  const A* data() const { return values_.data(); }

  template <class... I>
  A& operator()(I... index) {
    return values_[offset(index...)];
  }
  template <class... I>
  const A& operator()(I... index) const {
    return values_[offset(index...)];
  }

 private:
  int64_t offset(int64_t i) const { return i; }
  int64_t offset(int64_t i, int64_t j) const { return i * shape_[1] + j; }
  int64_t offset(int64_t i, int64_t j, int64_t k) const { return (i * shape_[1] + j) * shape_[2] + k; }
  Shape shape_;
  std::vector<A> values_;
};

// value as a T; bf16 rounds to nearest even.
template <class T, class A>
T convert(A value) {
  if constexpr (std::is_same_v<T, bf16>)
    return bf16(static_cast<float>(value));
  else
    return static_cast<T>(value);
}

// Calls body(pointer to T) with T the element type of the view.
template <class Body>
void with_dtype(const View& view, Body body) {
  switch (view.dtype) {
    case DType::kF64:
      return body(view.data<double>());
    case DType::kF32:
      return body(view.data<float>());
    case DType::kBF16:
      return body(view.data<bf16>());
    case DType::kI32:
      return body(view.data<int32_t>());
    case DType::kI64:
      return body(view.data<int64_t>());
    case DType::kNone:
      break;
  }
  CHECK(false, "an operand that must be there is undefined");
}

// Calls body(element offset) for every element of a view in row-major order.
template <class Body>
void for_each_offset(const View& view, Body body) {
  if (view.size() == 0) return;
  const int last = view.rank() - 1;
  const int64_t count = last < 0 ? 1 : view.dim(last), stride = last < 0 ? 1 : view.strides[last];
  std::array<int64_t, Shape::kMaxRank> index{};
  while (true) {
    int64_t offset = 0;
    for (int d = 0; d < last; ++d) offset += index[d] * view.strides[d];
    for (int64_t i = 0; i < count; ++i) body(offset + i * stride);
    int d = last - 1;
    while (d >= 0 && ++index[d] == view.dim(d)) index[d--] = 0;
    if (d < 0) return;
  }
}

// The caller's place, for messages. (clang-tidy 14 does not know std::source_location.)
struct Where {
  const char* file;
  int line;
  static Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

// CHECKs the shape of an operand; `where` is the op that asks.
inline void expect_shape(const View& view, const Shape& shape, Where where = Where::here()) {
  if (!view.defined() || !(view.shape == shape))
    internal::check_failed("operand has the expected shape", where.file, where.line,
                           fmt::format(" {}, expected {}", view.to_string(), shape.to_string()));
}

// The elements of a view of the given shape, converted to A.
template <class A>
Array<A> load(const View& view, Shape shape, Where where = Where::here()) {
  expect_shape(view, shape, where);
  const bool integral = view.dtype == DType::kI32 || view.dtype == DType::kI64;
  CHECK(integral == std::is_integral_v<A>, view.to_string(), where.file, where.line);
  Array<A> out(shape);
  A* to = out.data();
  with_dtype(view, [&](auto* from) { for_each_offset(view, [&](int64_t i) { *to++ = convert<A>(from[i]); }); });
  return out;
}

// The same for an optional operand: all elements are `otherwise` when it is undefined.
template <class A>
Array<A> load_or(const View& view, Shape shape, A otherwise, Where where = Where::here()) {
  return view.defined() ? load<A>(view, shape, where) : Array<A>(shape, otherwise);
}

// Rounds an array to the view's dtype.
template <class A>
void store(const View& view, const Array<A>& values, Where where = Where::here()) {
  expect_shape(view, values.shape(), where);
  const A* from = values.data();
  with_dtype(view, [&](auto* to) {
    using T = std::remove_reference_t<decltype(*to)>;
    for_each_offset(view, [&](int64_t i) { to[i] = convert<T>(*from++); });
  });
}

template <class A>
A sigmoid(A x) {
  return 1 / (1 + std::exp(-x));
}

inline bool is_f64(const View& view) { return view.dtype == DType::kF64; }
template <class T>
requires(!std::is_base_of_v<View, T>) bool is_f64(const T&) { return false; }

// One op from its two instantiations: double when any operand is f64, else float.
template <auto kDouble, auto kFloat>
struct ByOperands;
template <class... P, void (*kDouble)(P...), void (*kFloat)(P...)>
struct ByOperands<kDouble, kFloat> {
  static void call(Stream*, P... operands) {
    if ((is_f64(operands) || ...))
      kDouble(operands...);
    else
      kFloat(operands...);
  }
};

}  // namespace reference
}  // namespace temper::backend

// Enters the op template `name<A>` of the current scope into a table.
#define TEMPER_REFERENCE(table, name) \
  (table).name = &::temper::backend::reference::ByOperands<&name<double>, &name<float>>::call
