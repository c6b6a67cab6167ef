#include "comm/tree_sum.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "base/error.h"

namespace temper::comm {
namespace {

constexpr int64_t kBlock = 512;  // elements at a time: the partial sums of a block stay in the first cache
constexpr int kMaxLevels = 16;   // 65,536 ranks

// Accumulation type: wider only where a format cannot hold its own sums.
template <class T>
using Acc = std::conditional_t<std::is_same_v<T, bf16>, float, T>;

template <Reduce kReduce, class T>
T combine(T a, T b) {
  if constexpr (kReduce == Reduce::kSum) {
    // Integers wrap, as everywhere on this hardware, instead of being undefined.
    if constexpr (std::is_integral_v<T>) {
      using U = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    } else {
      return a + b;
    }
  } else {
    if constexpr (std::is_floating_point_v<T>) {
      if (b != b) return b;  // a NaN is not lost
    }
    return a < b ? b : a;
  }
}

template <class T, Reduce kReduce>
class Tree {
 public:
  using A = Acc<T>;
  Tree(std::span<const void* const> from) : from_(from) {}

  // Elements [begin, begin + n) of all ranks into to; n <= kBlock.
  void run(T* to, int64_t begin, int64_t n) {
    begin_ = begin;
    n_ = n;
    const auto size = static_cast<int64_t>(from_.size());
    if (size == 1) return convert(node(0, 0, level_[0]), to);
    const int top = std::bit_width(static_cast<uint64_t>(size - 1)) - 1;
    const A* left = node(0, top, level_[top]);
    const A* right = node(int64_t{1} << top, top, level_[kMaxLevels]);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = T(combine<kReduce, A>(left[i], right[i]));
  }

 private:
  // The sum over ranks [rank, rank + 2^height) that exist: in scratch, or where the rank's numbers are.
  const A* node(int64_t rank, int height, A* scratch) {
    if (height == 0) return leaf(rank, scratch);
    const int64_t half = int64_t{1} << (height - 1);
    const A* left = node(rank, height - 1, scratch);
    if (rank + half >= static_cast<int64_t>(from_.size())) return left;
    const A* right = node(rank + half, height - 1, level_[height - 1]);
    const int64_t n = n_;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) scratch[i] = combine<kReduce, A>(left[i], right[i]);
    return scratch;
  }
  const A* leaf(int64_t rank, A* scratch) const {
    const T* x = static_cast<const T*>(from_[static_cast<size_t>(rank)]) + begin_;
    if constexpr (std::is_same_v<T, A>) {
      return x;
    } else {
      for (int64_t i = 0; i < n_; ++i) scratch[i] = static_cast<A>(x[i]);
      return scratch;
    }
  }
  void convert(const A* from, T* to) const {
    for (int64_t i = 0; i < n_; ++i) to[i] = T(from[i]);
  }

  std::span<const void* const> from_;
  int64_t begin_ = 0, n_ = 0;
  // level_[h] holds the right child of height h while the left one waits; the last, that of the root.
  alignas(64) A level_[kMaxLevels + 1][kBlock];
};

template <class T, Reduce kReduce>
void reduce_typed(T* to, std::span<const void* const> from, int64_t count) {
  Tree<T, kReduce> tree(from);
  for (int64_t i = 0; i < count; i += kBlock) tree.run(to + i, i, std::min(kBlock, count - i));
}

template <class T>
void reduce_any(void* to, std::span<const void* const> from, int64_t count, Reduce reduce) {
  if (reduce == Reduce::kSum) return reduce_typed<T, Reduce::kSum>(static_cast<T*>(to), from, count);
  reduce_typed<T, Reduce::kMax>(static_cast<T*>(to), from, count);
}

}  // namespace

void check_reducible(DType dtype, const char* op) {
  if (dtype_bytes(dtype) == 0) fail(ErrorCode::kInvalidArgument, "{}: a tensor without a dtype cannot be summed", op);
}

void reduce_tree(void* to, std::span<const void* const> from, int64_t count, DType dtype, Reduce reduce) {
  switch (dtype) {
    case DType::kF32:
      return reduce_any<float>(to, from, count, reduce);
    case DType::kF64:
      return reduce_any<double>(to, from, count, reduce);
    case DType::kBF16:
      return reduce_any<bf16>(to, from, count, reduce);
    case DType::kI32:
      return reduce_any<int32_t>(to, from, count, reduce);
    case DType::kI64:
      return reduce_any<int64_t>(to, from, count, reduce);
    case DType::kNone:
      break;
  }
  check_reducible(dtype, "reduce");
}

}  // namespace temper::comm
