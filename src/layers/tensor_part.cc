#include "layers/tensor_part.h"

#include <vector>

namespace temper::layers {
namespace {

// Elements of a row, which a view without rows still tells.
int64_t row_size(const View& view) {
  int64_t size = 1;
  for (int d = 1; d < view.rank(); ++d) size *= view.dim(d);
  return size;
}

// A view's rows and those that pad them.
View with_padding(const View& rows, int64_t num_rows) {
  return {rows.base, rows.dtype, {num_rows * row_size(rows)}, rows.offset};
}

void check_group(const Ctx& ctx, const TensorPart& part) {
  CHECK(comm::group_size(ctx.groups.tp) == part.size && comm::group_rank(ctx.groups.tp) == part.rank, part.rank,
        part.size, comm::group_size(ctx.groups.tp));
}

// Rows of each rank.
std::vector<int64_t> rows_of_ranks(const TensorPart& part, int64_t R) {
  std::vector<int64_t> rows(part.size);
  for (int64_t r = 0; r < part.size; ++r) {
    const TensorPart other{r, part.size};
    rows[r] = other.end(R) - other.begin(R);
  }
  return rows;
}

}  // namespace

Parameter cut(Parameter whole, const TensorPart& part) {
  if (!part.is_cut()) return whole;
  CHECK(whole.shape[0] % part.size == 0, whole.name, whole.shape[0], part.size);
  Parameter p = std::move(whole);
  const int64_t rows = p.shape[0] / part.size;
  p.part = {p.shape, 0, part.rank * rows};
  p.shape[0] = rows;
  return p;
}

void gather_pieces(Ctx& ctx, const TensorPart& part, View all_RX, View own_PX, const char* what) {
  check_group(ctx, part);
  const int64_t R = all_RX.dim(0);
  if (R == 0) return;
  ctx.groups.tp->all_gather(ctx.stream, with_padding(all_RX, part.padded(R)), with_padding(own_PX, part.piece(R)),
                            {what, ctx.layer});
}

void gather_in_place(Ctx& ctx, const TensorPart& part, View all_RX, const char* what) {
  if (!part.is_cut()) return;
  check_group(ctx, part);
  const int64_t piece = part.piece(all_RX.dim(0)) * row_size(all_RX);
  const View all = with_padding(all_RX, part.padded(all_RX.dim(0)));
  if (piece > 0)
    ctx.groups.tp->all_gather(ctx.stream, all, all.rows(part.rank * piece, (part.rank + 1) * piece), {what, ctx.layer});
}

void add_pieces(Ctx& ctx, const TensorPart& part, View own_PX, View all_RX, const char* what) {
  check_group(ctx, part);
  const int64_t R = all_RX.dim(0);
  if (R == 0) return;
  ctx.groups.tp->reduce_scatter(ctx.stream, with_padding(own_PX, part.piece(R)), with_padding(all_RX, part.padded(R)),
                                {what, ctx.layer});
}

void columns_to_rows(Ctx& ctx, const TensorPart& part, View own_PY, View all_RX, View buffer_NX, const char* what) {
  check_group(ctx, part);
  const int64_t P = own_PY.dim(0), X = row_size(all_RX);
  const View buffer = buffer_NX.first(part.size * P);
  ctx.groups.tp->all_to_all_v(ctx.stream, buffer, std::vector<int64_t>(part.size, P), all_RX,
                              rows_of_ranks(part, all_RX.dim(0)), {what, ctx.layer});
  const View own = own_PY.reshape({P, part.size * X});
  for (int64_t r = 0; r < part.size; ++r)
    ctx.ops.copy(ctx.stream, own.slice(1, r * X, (r + 1) * X), buffer.rows(r * P, (r + 1) * P).reshape({P, X}));
}

void rows_to_columns(Ctx& ctx, const TensorPart& part, View all_RX, View own_PY, View buffer_NX, const char* what) {
  check_group(ctx, part);
  const int64_t P = own_PY.dim(0), X = row_size(all_RX);
  const View buffer = buffer_NX.first(part.size * P), own = own_PY.reshape({P, part.size * X});
  for (int64_t r = 0; r < part.size; ++r)
    ctx.ops.copy(ctx.stream, buffer.rows(r * P, (r + 1) * P).reshape({P, X}), own.slice(1, r * X, (r + 1) * X));
  ctx.groups.tp->all_to_all_v(ctx.stream, all_RX, rows_of_ranks(part, all_RX.dim(0)), buffer,
                              std::vector<int64_t>(part.size, P), {what, ctx.layer});
}

}  // namespace temper::layers
