// Products: normalises operands, cuts c between the threads, and calls the packed kernel of this machine. f64 operands
// go to the scalar reference.
#include "backend/cpu/products.h"

#include <algorithm>

#include "backend/cpu/cpu_internal.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

// Cuts between threads fall on multiples of these rows and columns: whole or half register tiles.
constexpr int64_t kCutRows = 4, kCutCols = 32;
// A fork costs about as much as this many floating-point operations of one thread.
constexpr double kForkFlops = 0.5e6;
// An expert's weight comes from memory and is packed: that takes about as long as this many of its rows.
constexpr int64_t kExpertRows = 24;
// Gradients of experts larger than this are not in a cache any more when the optimizer reads them.
constexpr int64_t kFarBytes = int64_t{16} << 20;

// One matrix of an operand of rank 2, or matrix `batch` of one of rank 3.
struct Matrix {
  char* data;
  int64_t rows, cols, row_stride, col_stride;

  Matrix(const View& view, int64_t batch) {
    const int r = view.rank();
    data = static_cast<char*>(view.raw()) + (r == 3 ? batch * view.strides[0] * dtype_bytes(view.dtype) : 0);
    rows = view.dim(r - 2), cols = view.dim(r - 1);
    row_stride = view.strides[r - 2], col_stride = view.strides[r - 1];
    // The stride of a dim of size 1 means nothing: make it the unit stride that the kernels look for.
    if (cols == 1 && row_stride != 1) col_stride = 1;
    if (rows == 1 && col_stride != 1) row_stride = 1;
    CHECK(row_stride == 1 || col_stride == 1, row_stride, col_stride);
  }
  void transpose() { std::swap(rows, cols), std::swap(row_stride, col_stride); }
};

// c = a b (+ c) restricted to rows [row, row_end) and columns [col, col_end) of c.
struct Product {
  Matrix c, a, b;
  DType c_dtype, dtype;
  bool accumulate, c_is_far = false;

  Product(const View& c_view, const View& a_view, const View& b_view, bool accumulate, int64_t batch = 0)
      : c(c_view, batch),
        a(a_view, batch),
        b(b_view, batch),
        c_dtype(c_view.dtype),
        dtype(a_view.dtype),
        accumulate(accumulate) {
    CHECK(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, a.rows, a.cols, b.rows, b.cols, c.rows, c.cols);
    if (c.col_stride != 1) {  // c^T = b^T a^T
      c.transpose(), a.transpose(), b.transpose();
      std::swap(a, b);
    }
  }

  void run(int64_t row, int64_t row_end, int64_t col, int64_t col_end) const {
    if (row >= row_end || col >= col_end) return;
    const int64_t bytes = dtype_bytes(dtype);
    const ProductBlock block{row_end - row,
                             col_end - col,
                             a.cols,
                             a.data + row * a.row_stride * bytes,
                             a.row_stride,
                             a.col_stride,
                             b.data + col * b.col_stride * bytes,
                             b.row_stride,
                             b.col_stride,
                             c.data + (row * c.row_stride + col) * dtype_bytes(c_dtype),
                             c.row_stride,
                             c_dtype == DType::kBF16,
                             accumulate,
                             c_is_far};
    (dtype == DType::kBF16 ? product_kernels().bf16 : product_kernels().f32)(block);
  }
};

// A grid of parts over c.
struct Grid {
  int64_t rows, cols;  // of c
  int64_t parts_m = 1, parts_n = 1;

  int64_t parts() const { return parts_m * parts_n; }
  void run(const Product& product, int64_t part) const {
    const int64_t i = part / parts_n, j = part % parts_n;
    product.run(cut(rows, kCutRows, i, parts_m), cut(rows, kCutRows, i + 1, parts_m), cut(cols, kCutCols, j, parts_n),
                cut(cols, kCutCols, j + 1, parts_n));
  }
  static int64_t cut(int64_t size, int64_t tile, int64_t i, int64_t parts) {
    return std::min(size, (size + tile - 1) / tile * i / parts * tile);
  }
};

// The grid of at most `threads` parts with the least time of its largest part: multiplication takes rows * cols, and
// packing, of which every part does its own, about as long as eight more rows and columns.
Grid choose_grid(int64_t rows, int64_t cols, int64_t depth, int threads) {
  Grid best{rows, cols};
  const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(cols) * static_cast<double>(depth);
  threads = static_cast<int>(std::min<double>(threads, flops / kForkFlops));
  double best_cost = 0;
  for (int64_t parts_n = 1; parts_n <= std::max(threads, 1); ++parts_n) {
    const int64_t parts_m = std::max<int64_t>(threads / parts_n, 1);
    const auto largest = [](int64_t size, int64_t tile, int64_t parts) {
      const int64_t tiles = (size + tile - 1) / tile;
      const int64_t most = (tiles + parts - 1) / parts;
      return static_cast<double>(most * tile);
    };
    const double cost = (largest(rows, kCutRows, parts_m) + 8) * (largest(cols, kCutCols, parts_n) + 8);
    if (parts_n == 1 || cost < best_cost) {
      best_cost = cost;
      best.parts_m = parts_m, best.parts_n = parts_n;
    }
  }
  return best;
}

bool is_fast(const View& c, const View& a, const View& b) {
  const auto known = [](const View& view) { return view.dtype == DType::kF32 || view.dtype == DType::kBF16; };
  return known(c) && known(a) && a.dtype == b.dtype;
}

void matmul(Stream* stream, InOut c_MN, In a_MK, In b_KN, double beta) {
  if (!is_fast(c_MN, a_MK, b_KN)) return cpu_reference().ops.matmul(stream, c_MN, a_MK, b_KN, beta);
  CHECK(beta == 0 || beta == 1, beta);
  const int rank = c_MN.rank();
  CHECK((rank == 2 || rank == 3) && a_MK.rank() == rank && b_KN.rank() == rank, rank, a_MK.rank(), b_KN.rank());
  const int64_t batches = rank == 3 ? c_MN.dim(0) : 1;
  if (rank == 3) CHECK(a_MK.dim(0) == batches && b_KN.dim(0) == batches, batches, a_MK.dim(0), b_KN.dim(0));
  if (c_MN.size() == 0) return;
  const Product first(c_MN, a_MK, b_KN, beta == 1);
  // Whole matrices to each thread where there are enough, else parts of them.
  const int64_t threads_each = batches >= num_threads() ? 1 : num_threads() / batches;
  const Grid grid = choose_grid(first.c.rows, first.c.cols, first.a.cols, static_cast<int>(threads_each));
  const double part_flops = 2.0 * static_cast<double>(c_MN.size()) * static_cast<double>(first.a.cols) /
                            static_cast<double>(batches * grid.parts());
  const auto grain = static_cast<int64_t>(kForkFlops / std::max(part_flops, 1.0)) + 1;
  parallel_for(batches * grid.parts(), grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      grid.run(Product(c_MN, a_MK, b_KN, beta == 1, i / grid.parts()), i % grid.parts());
    }
  });
}

// Row offsets of the experts, checked against the rows that there are.
const int32_t* checked_offsets(const View& offset_E1, int64_t num_experts, int64_t num_rows) {
  CHECK(offset_E1.size() == num_experts + 1 && offset_E1.contiguous(), offset_E1.to_string(), num_experts);
  const int32_t* offset = offset_E1.data<int32_t>();
  CHECK(offset[0] >= 0 && offset[num_experts] <= num_rows, offset[0], offset[num_experts], num_rows);
  for (int64_t e = 0; e < num_experts; ++e) CHECK(offset[e] <= offset[e + 1], e, offset[e], offset[e + 1]);
  return offset;
}

// Part `part` of `parts` of all experts' products, cut along one dimension of each: the experts lie side by side, each
// as long as its product takes, and are cut into equal lengths, so that few are shared by two parts.
class ExpertCuts {
 public:
  // An expert takes as long as `fixed_rows` more rows than it has: its weight must come from memory.
  ExpertCuts(const int32_t* offset, int64_t num_experts, int64_t fixed_rows)
      : offset_(offset), fixed_rows_(fixed_rows) {
    for (int64_t e = 0; e < num_experts; ++e) total_ += length(e);
  }
  // Calls body(e, begin, end) for the range [begin, end) of [0, size(e)) that the part has of each of its experts.
  template <class Size, class Body>
  void for_each(int64_t part, int64_t parts, const Size& size, const Body& body) const {
    const int64_t from = total_ * part / parts, to = total_ * (part + 1) / parts;
    for (int64_t e = 0, start = 0; start < to; start += length(e), ++e) {
      if (length(e) == 0 || start + length(e) <= from) continue;
      const auto cut = [&](int64_t at) {
        const int64_t inside = std::clamp<int64_t>(at - start, 0, length(e));
        return inside == length(e) ? size(e) : size(e) * inside / length(e) / kCutRows * kCutRows;
      };
      if (cut(from) < cut(to)) body(e, cut(from), cut(to));
    }
  }

 private:
  int64_t length(int64_t e) const {
    const int64_t rows = offset_[e + 1] - offset_[e];
    return rows == 0 ? 0 : rows + fixed_rows_;
  }

  const int32_t* offset_;
  int64_t fixed_rows_, total_ = 0;
};

View matrix_of(const View& all_ERC, int64_t e) {
  View one_RC(all_ERC.base, all_ERC.dtype, {all_ERC.dim(1), all_ERC.dim(2)}, all_ERC.offset + e * all_ERC.strides[0]);
  one_RC.strides = {all_ERC.strides[1], all_ERC.strides[2]};
  return one_RC;
}

int64_t num_parts(double flops) {
  return static_cast<int64_t>(std::clamp<double>(flops / kForkFlops, 1, num_threads()));
}

void grouped_matmul(Stream* stream, Out c_RN, In a_RK, In b_EKN, In offset_E1) {
  if (!is_fast(c_RN, a_RK, b_EKN)) return cpu_reference().ops.grouped_matmul(stream, c_RN, a_RK, b_EKN, offset_E1);
  const int64_t num_experts = b_EKN.dim(0), cols = c_RN.dim(1);
  const int32_t* offset = checked_offsets(offset_E1, num_experts, a_RK.dim(0));
  const int64_t rows = offset[num_experts] - offset[0];
  const int64_t parts = num_parts(2.0 * static_cast<double>(rows) * static_cast<double>(cols * a_RK.dim(1)));
  const auto run = [&](int64_t e, int64_t row, int64_t row_end, int64_t col, int64_t col_end) {
    Product(c_RN.rows(offset[e], offset[e + 1]), a_RK.rows(offset[e], offset[e + 1]), matrix_of(b_EKN, e), false)
        .run(row, row_end, col, col_end);
  };
  const auto rows_of = [&](int64_t e) -> int64_t { return offset[e + 1] - offset[e]; };
  if (rows / parts >= 48) {
    const ExpertCuts cuts(offset, num_experts, kExpertRows);
    parallel_for(parts, 1, [&](int64_t part, int64_t, int) {
      cuts.for_each(part, parts, rows_of,
                    [&](int64_t e, int64_t row, int64_t row_end) { run(e, row, row_end, 0, cols); });
    });
  } else {  // too few rows for tiles of every thread: cut the columns
    parallel_for(parts, 1, [&](int64_t part, int64_t, int) {
      const int64_t col = Grid::cut(cols, kCutCols, part, parts), col_end = Grid::cut(cols, kCutCols, part + 1, parts);
      for (int64_t e = 0; e < num_experts; ++e) {
        if (rows_of(e) > 0) run(e, 0, rows_of(e), col, col_end);
      }
    });
  }
}

void grouped_matmul_dw(Stream* stream, InOut dw_ENK, In dy_RN, In x_RK, In offset_E1, double beta) {
  if (!is_fast(dw_ENK, dy_RN, x_RK)) {
    return cpu_reference().ops.grouped_matmul_dw(stream, dw_ENK, dy_RN, x_RK, offset_E1, beta);
  }
  CHECK(beta == 0 || beta == 1, beta);
  const int64_t num_experts = dw_ENK.dim(0), N = dw_ENK.dim(1), K = dw_ENK.dim(2);
  const int32_t* offset = checked_offsets(offset_E1, num_experts, x_RK.dim(0));
  const int64_t rows = offset[num_experts] - offset[0];
  const int64_t parts = num_parts(2.0 * static_cast<double>(rows) * static_cast<double>(N * K));
  const ExpertCuts cuts(offset, num_experts, kExpertRows);
  parallel_for(parts, 1, [&](int64_t part, int64_t, int) {
    cuts.for_each(
        part, parts, [&](int64_t) { return N; },
        [&](int64_t e, int64_t n, int64_t n_end) {
          Product product(matrix_of(dw_ENK, e), dy_RN.rows(offset[e], offset[e + 1]).t(),
                          x_RK.rows(offset[e], offset[e + 1]), beta == 1);
          product.c_is_far = dw_ENK.num_bytes() > kFarBytes;
          product.run(n, n_end, 0, K);
        });
  });
  for (int64_t e = 0; e < num_experts && beta == 0; ++e) {
    if (offset[e] == offset[e + 1]) cpu().ops.fill(stream, dw_ENK.rows(e, e + 1), 0);
  }
}

}  // namespace

void register_products(OpTable& ops) {
  ops.matmul = matmul;
  ops.grouped_matmul = grouped_matmul;
  ops.grouped_matmul_dw = grouped_matmul_dw;
}

}  // namespace temper::backend
