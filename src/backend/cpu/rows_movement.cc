// Movement: fill, copy, add, gather and scatter of rows, the embedding, and the sum over experts.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "backend/cpu/rows.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

// --- any shape ------------------------------------------------------------------------------------------------------

// A view as equally long runs of neighbours: dims are joined from the inside as long as they are dense.
struct Runs {
  int64_t num_runs = 1, run_elements = 1;
  View view;
  int num_outer_dims;

  // `together` joins dims only where the other view's are dense too.
  explicit Runs(const View& v, const View* together = nullptr) : view(v), num_outer_dims(v.rank()) {
    const auto dense = [&](const View& x) {
      return x.dim(num_outer_dims - 1) == 1 || x.strides[num_outer_dims - 1] == run_elements;
    };
    while (num_outer_dims > 0 && dense(v) && (together == nullptr || dense(*together))) {
      run_elements *= v.dim(--num_outer_dims);
    }
    for (int d = 0; d < num_outer_dims; ++d) num_runs *= v.dim(d);
  }
  // Element offset of a run, in a view of the same shape.
  int64_t offset(const View& of, int64_t run) const {
    int64_t at = 0;
    for (int d = num_outer_dims - 1; d >= 0; --d) {
      at += run % view.dim(d) * of.strides[d];
      run /= view.dim(d);
    }
    return at;
  }
};

// Calls body(run, first element, end element) on the thread's share of the elements of all runs.
template <class Body>
void for_each_run(const Runs& runs, Body body) {
  parallel_for(runs.num_runs * runs.run_elements, 16 * 1024, [&](int64_t begin, int64_t end, int) {
    while (begin < end) {
      const int64_t run = begin / runs.run_elements, first = begin % runs.run_elements;
      const int64_t last = std::min(runs.run_elements, first + end - begin);
      body(run, first, last);
      begin += last - first;
    }
  });
}

char* element(const View& view, int64_t index) {
  return static_cast<char*>(view.raw()) + index * dtype_bytes(view.dtype);
}

// `bits` is the value's representation, as an integer of the element's size.
template <class Bits>
void fill_with(const View& y, Bits bits) {
  const Runs runs(y);
  for_each_run(runs, [&](int64_t run, int64_t first, int64_t last) {
    Bits* to = static_cast<Bits*>(y.raw()) + runs.offset(y, run);
    std::fill(to + first, to + last, bits);
  });
}

void fill(Stream*, Out y, double value) {
  if (y.size() == 0) return;
  switch (y.dtype) {
    case DType::kF64:
      return fill_with(y, std::bit_cast<uint64_t>(value));
    case DType::kF32:
      return fill_with(y, std::bit_cast<uint32_t>(static_cast<float>(value)));
    case DType::kBF16:
      return fill_with(y, bf16(value).bits);
    case DType::kI32:
      return fill_with(y, static_cast<int32_t>(value));
    case DType::kI64:
      return fill_with(y, static_cast<int64_t>(value));
    case DType::kNone:
      CHECK(false, "fill of an undefined view");
  }
}

void copy(Stream* stream, Out y, In x) {
  CHECK(y.shape == x.shape, y.to_string(), x.to_string());
  const auto real = [](const View& v) { return v.dtype == DType::kF32 || v.dtype == DType::kBF16; };
  if (y.dtype != x.dtype && !(real(y) && real(x))) return cpu_reference().ops.copy(stream, y, x);
  if (y.size() == 0) return;
  const Runs runs(y, &x);
  for_each_run(runs, [&](int64_t run, int64_t first, int64_t last) {
    char* to = element(y, runs.offset(y, run) + first);
    char* from = element(x, runs.offset(x, run) + first);
    if (y.dtype == x.dtype) {
      std::memcpy(to, from, static_cast<size_t>((last - first) * dtype_bytes(y.dtype)));
    } else {
      row_kernels().copy({to, y.dtype == DType::kBF16}, {from, x.dtype == DType::kBF16}, last - first);
    }
  });
}

void add(Stream* stream, InOut y, In x, double alpha) {
  if (any_f64(y, x)) return cpu_reference().ops.add(stream, y, x, alpha);
  CHECK(y.shape == x.shape, y.to_string(), x.to_string());
  const Reals to = reals(y), from = reals(x);
  parallel_for(y.size(), 16 * 1024, [&](int64_t begin, int64_t end, int) {
    row_kernels().add(to.at(begin), from.at(begin), static_cast<float>(alpha), end - begin);
  });
}

// --- rows by index --------------------------------------------------------------------------------------------------

const int32_t* checked_indices(const View& index, int64_t least, int64_t end) {
  const int32_t* at = index.data<int32_t>();
  CHECK(index.contiguous(), index.to_string());
  int32_t lowest = std::numeric_limits<int32_t>::max(), highest = std::numeric_limits<int32_t>::min();
  for (int64_t i = 0; i < index.size(); ++i) lowest = std::min(lowest, at[i]), highest = std::max(highest, at[i]);
  CHECK(index.size() == 0 || (lowest >= least && highest < end), lowest, least, highest, end);
  return at;
}

// Rows of one f32 or i32: the experts' weights of tokens.
void gather_numbers(const View& y_R1, const View& x_T1, const int32_t* index, int64_t R) {
  auto* to = static_cast<uint32_t*>(y_R1.raw());
  const auto* from = static_cast<const uint32_t*>(x_T1.raw());
  const int64_t stride = x_T1.strides[0];
  parallel_for(R, row_grain(1), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) to[r] = index[r] < 0 ? 0 : from[index[r] * stride];
  });
}

void gather_rows(Stream*, Out y_RD, In x_TD, In index_R) {
  const int64_t R = y_RD.dim(0), D = y_RD.dim(1);
  CHECK(y_RD.dtype == x_TD.dtype && x_TD.dim(1) == D && index_R.size() == R, y_RD.to_string(), x_TD.to_string(), R);
  CHECK(y_RD.contiguous() && (x_TD.strides[1] == 1 || D <= 1), y_RD.to_string());
  const int32_t* index = checked_indices(index_R, -1, x_TD.dim(0));
  const auto row_bytes = static_cast<size_t>(D * dtype_bytes(y_RD.dtype));
  if (row_bytes == 4) return gather_numbers(y_RD, x_TD, index, R);
  parallel_for(R, row_grain(D), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      char* to = element(y_RD, r * D);
      if (index[r] < 0) {
        std::memset(to, 0, row_bytes);
      } else {
        std::memcpy(to, element(x_TD, index[r] * x_TD.strides[0]), row_bytes);
      }
    }
  });
}

// One thread: it serves the caches of decoding, a few rows at a time, and equal indices must be written in order.
void scatter_rows(Stream*, InOut y_TD, In x_RD, In index_R) {
  const int64_t R = x_RD.dim(0), D = x_RD.dim(1);
  CHECK(y_TD.dtype == x_RD.dtype && y_TD.dim(1) == D && index_R.size() == R, y_TD.to_string(), x_RD.to_string(), R);
  CHECK(y_TD.contiguous() && x_RD.contiguous(), y_TD.to_string(), x_RD.to_string());
  const int32_t* index = checked_indices(index_R, -1, y_TD.dim(0));
  const auto row_bytes = static_cast<size_t>(D * dtype_bytes(y_TD.dtype));
  for (int64_t r = 0; r < R; ++r) {
    if (index[r] >= 0) std::memcpy(element(y_TD, index[r] * D), element(x_RD, r * D), row_bytes);
  }
}

// y rows named by index += rows_per_index rows of x each. Threads share out the rows of y: every row is summed by one
// thread in ascending order of rows of x.
void scatter_add(const View& y, const View& x, const int32_t* index, int64_t num_indices, int64_t rows_per_index) {
  const int64_t D = y.dim(1), num_owners = num_threads();
  const Reals to = reals(y), from = reals(x);
  parallel_for(num_owners, row_grain(num_indices * rows_per_index * D / num_owners),
               [&](int64_t begin, int64_t end, int) {
                 for (int64_t i = 0; i < num_indices; ++i) {
                   if (index[i] < 0 || index[i] % num_owners < begin || index[i] % num_owners >= end) continue;
                   for (int64_t r = i * rows_per_index; r < (i + 1) * rows_per_index; ++r) {
                     row_kernels().add(to.at(index[i] * D), from.at(r * D), 1, D);
                   }
                 }
               });
}

void scatter_add_rows(Stream* stream, InOut y_TD, In x_RD, In index_R) {
  // A bf16 sum must be rounded once, not at every row: the reference keeps it in f32.
  if (any_f64(y_TD, x_RD) || y_TD.dtype == DType::kBF16) {
    return cpu_reference().ops.scatter_add_rows(stream, y_TD, x_RD, index_R);
  }
  CHECK(x_RD.dim(1) == y_TD.dim(1) && index_R.size() == x_RD.dim(0), x_RD.to_string(), y_TD.to_string());
  scatter_add(y_TD, x_RD, checked_indices(index_R, -1, y_TD.dim(0)), index_R.size(), 1);
}

void embedding_forward(Stream*, Out x_TMD, In table_VD, In token_T) {
  const int64_t T = x_TMD.dim(0), M = x_TMD.dim(1), D = x_TMD.dim(2);
  CHECK(x_TMD.dtype == table_VD.dtype && table_VD.dim(1) == D && token_T.size() == T, x_TMD.to_string(), T);
  CHECK(x_TMD.contiguous() && table_VD.contiguous(), x_TMD.to_string(), table_VD.to_string());
  const int32_t* token = checked_indices(token_T, 0, table_VD.dim(0));
  const auto row_bytes = static_cast<size_t>(D * dtype_bytes(x_TMD.dtype));
  parallel_for(T, row_grain(M * D), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t i = 0; i < M; ++i) {
        std::memcpy(element(x_TMD, (t * M + i) * D), element(table_VD, token[t] * D), row_bytes);
      }
    }
  });
}

void embedding_backward(Stream* stream, InOut dtable_VD, In dx_TMD, In token_T) {
  if (any_f64(dtable_VD, dx_TMD)) return cpu_reference().ops.embedding_backward(stream, dtable_VD, dx_TMD, token_T);
  CHECK(dx_TMD.dim(2) == dtable_VD.dim(1) && token_T.size() == dx_TMD.dim(0), dx_TMD.to_string(), token_T.size());
  scatter_add(dtable_VD, dx_TMD, checked_indices(token_T, 0, dtable_VD.dim(0)), token_T.size(), dx_TMD.dim(1));
}

void combine(Stream* stream, Out y_TD, In x_RD, In slot_row_TK, In base_TD) {
  if (any_f64(y_TD, x_RD, base_TD)) return cpu_reference().ops.combine(stream, y_TD, x_RD, slot_row_TK, base_TD);
  const int64_t T = y_TD.dim(0), D = y_TD.dim(1), K = slot_row_TK.dim(1);
  CHECK(x_RD.dim(1) == D && slot_row_TK.dim(0) == T, x_RD.to_string(), slot_row_TK.to_string(), T);
  CHECK(!base_TD.defined() || base_TD.shape == y_TD.shape, base_TD.to_string(), y_TD.to_string());
  const int32_t* slot_row = checked_indices(slot_row_TK, 0, x_RD.dim(0));
  const Reals y = reals(y_TD), x = reals(x_RD), base = reals(base_TD);
  parallel_for(T, row_grain(K * D), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      row_kernels().combine(y.at(t * D), x, slot_row + t * K, K, base ? base.at(t * D) : Reals{}, D);
    }
  });
}

}  // namespace

void register_movement_rows(OpTable& ops) {
  ops.fill = fill;
  ops.copy = copy;
  ops.add = add;
  ops.gather_rows = gather_rows;
  ops.scatter_rows = scatter_rows;
  ops.scatter_add_rows = scatter_add_rows;
  ops.embedding_forward = embedding_forward;
  ops.embedding_backward = embedding_backward;
  ops.combine = combine;
}

}  // namespace temper::backend
