// Which token each row in memory came from, followed through the ops of a pass.
//
// Rows of dispatched experts, compressed entries, chunks of the head and rows of the prediction block are not tokens in
// order. Each op says where its output's rows come from: an index that it gathers by, or the input whose name in
// ops.def has the same first dimension. Memory is shared, so what counts is what was written last.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "backend/watched.h"
#include "layers/ctx.h"

namespace temper::train {

struct Origin {
  static constexpr int32_t kUnknown = -2, kPadding = -1;
  int32_t token = kUnknown;  // position in the micro-batch, the first of several
  int32_t num_tokens = 1;    // more where a row is an entry made of a window
};

class RowOrigins {
 public:
  // ctx: where the tensors can be read.
  explicit RowOrigins(const layers::Ctx& ctx) : ctx_(ctx) {}

  // Rows of a tensor that come from no other: their positions in the micro-batch; empty: they are not rows of tokens.
  void number(const View& view, const std::vector<int32_t>& rows);
  // After any other op: its outputs' rows.
  void follow(const backend::OpCall& call);

  // Of each row of an operand, row_dim() being their dim; empty where they are not rows of tokens.
  std::vector<Origin> rows(const View& view) const;
  // The dim whose elements are furthest apart: that of the rows in memory, also of a transposed or grouped View.
  static int row_dim(const View& view);

 private:
  struct Stretch {
    const char *begin, *end;
    int64_t row_bytes;
    std::vector<Origin> origins;  // empty: not rows of tokens
  };
  void set(const View& view, std::vector<Origin> origins);
  std::vector<Origin> inherited(const backend::OpCall& call, const backend::Operand& output) const;
  std::vector<Origin> gathered(const View& source, const View& index) const;
  std::vector<Origin> pooled(const View& source, const View& row_C, int64_t rate) const;
  std::vector<Origin> scattered(const View& target, const View& source, const View& index) const;

  layers::Ctx ctx_;
  std::deque<Stretch> stretches_;  // the newest first
};

}  // namespace temper::train
