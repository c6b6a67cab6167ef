// Tensor parallelism inside a layer (post-training 4.4): what a rank of Ctx::groups.tp has of a layer's parameters and
// rows, and how rows come together and part again.
//
// Attention is cut by heads and output groups, embedding and head by words. Everywhere else rows are cut (sequence
// parallel): of R rows, rank r has P = ceil(R / size) from r P on; the last pieces may be shorter or empty. So every
// row belongs to one rank, and the gradient of a parameter that all ranks have is a plain sum over them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/ctx.h"
#include "layers/parameter.h"

namespace temper::layers {

struct TensorPart {
  int64_t rank = 0, size = 1;

  bool is_cut() const { return size > 1; }
  // Of R rows: those of a piece, of all pieces with what pads the last ones, and where this rank's begin and end.
  int64_t piece(int64_t R) const { return (R + size - 1) / size; }
  int64_t padded(int64_t R) const { return size * piece(R); }
  int64_t begin(int64_t R) const { return std::min(R, rank * piece(R)); }
  int64_t end(int64_t R) const { return std::min(R, (rank + 1) * piece(R)); }
};

// The rank's equal share of dim 0 of a parameter that is made whole.
Parameter cut(Parameter whole, const TensorPart& part);

// The following are collective over Ctx::groups.tp. all_RX: all rows, in memory for padded(R) of them; own_PX: this
// rank's, in memory for piece(R). what names the exchange.

// all <- the rows of all ranks.
void gather_pieces(Ctx& ctx, const TensorPart& part, View all_RX, View own_PX, const char* what);
// The same where own rows are in their place in all_RX.
void gather_in_place(Ctx& ctx, const TensorPart& part, View all_RX, const char* what);
// own <- the sum over ranks of their `all`, which is undefined after it.
void add_pieces(Ctx& ctx, const TensorPart& part, View own_PX, View all_RX, const char* what);

// A rank has columns [rank * X, (rank + 1) * X) of all rows, or all columns Y = size * X of its rows: from the one to
// the other and back. buffer_NX: scratch of the same dtype for padded(R) rows.
void columns_to_rows(Ctx& ctx, const TensorPart& part, View own_PY, View all_RX, View buffer_NX, const char* what);
void rows_to_columns(Ctx& ctx, const TensorPart& part, View all_RX, View own_PY, View buffer_NX, const char* what);

}  // namespace temper::layers
