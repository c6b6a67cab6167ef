#include "layers/context_exchange.h"

#include <algorithm>

namespace temper::layers {
namespace {

// The rows of rank `owner` that rank `reader` needs, as numbers of the micro-batch.
struct Rows {
  int64_t begin, end;
  int64_t count() const { return std::max<int64_t>(0, end - begin); }
};
Rows shared_rows(const RowCut& cut, const History& needed_R, int64_t owner, int64_t reader) {
  return {std::max(cut.begin_R[owner], cut.begin_R[reader] - needed_R[reader]), cut.begin_R[owner + 1]};
}

// Rows of a tensor that ends with the last own row.
View rows_of(const View& x_JX, const RowCut& cut, Rows rows) {
  const int64_t first = cut.end() - x_JX.dim(0);
  return x_JX.rows(rows.begin - first, rows.end - first);
}

}  // namespace

void receive_history(Ctx& ctx, View x_JX, const RowCut& cut, const History& needed_R, const char* what) {
  for (int64_t reader = cut.rank + 1; reader < cut.size(); ++reader) {
    const Rows rows = shared_rows(cut, needed_R, cut.rank, reader);
    if (rows.count() > 0) ctx.groups.cp->send(ctx.stream, rows_of(x_JX, cut, rows), reader, {what, ctx.layer});
  }
  for (int64_t owner = 0; owner < cut.rank; ++owner) {
    const Rows rows = shared_rows(cut, needed_R, owner, cut.rank);
    if (rows.count() > 0) ctx.groups.cp->recv(ctx.stream, rows_of(x_JX, cut, rows), owner, {what, ctx.layer});
  }
}

void return_history(Ctx& ctx, View dx_JX, View from_next_HX, const RowCut& cut, const History& needed_R,
                    const char* what) {
  for (int64_t owner = 0; owner < cut.rank; ++owner) {
    const Rows rows = shared_rows(cut, needed_R, owner, cut.rank);
    if (rows.count() > 0) ctx.groups.cp->send(ctx.stream, rows_of(dx_JX, cut, rows), owner, {what, ctx.layer});
  }
  for (int64_t reader = cut.rank + 1; reader < cut.size(); ++reader) {
    const Rows rows = shared_rows(cut, needed_R, cut.rank, reader);
    if (rows.count() == 0) continue;
    const View received = from_next_HX.first(rows.count());
    ctx.groups.cp->recv(ctx.stream, received, reader, {what, ctx.layer});
    ctx.ops.add(ctx.stream, rows_of(dx_JX, cut, rows), received, 1);
  }
}

EntryExchange::EntryExchange(const RowCut& cut, const std::vector<int64_t>& count_R, View padded_PX)
    : cut_(cut),
      count_R_(count_R),
      room_(*std::max_element(count_R.begin(), count_R.end())),
      padded_PX_(padded_PX.first(room_ * cut.size())) {}

View EntryExchange::of_rank(int64_t rank) const { return padded_PX_.rows(rank * room_, rank * room_ + count_R_[rank]); }

View EntryExchange::own() const { return of_rank(cut_.rank); }

void EntryExchange::gather(Ctx& ctx, View all_CX, const char* what) const {
  const View mine_EX = padded_PX_.rows(cut_.rank * room_, (cut_.rank + 1) * room_);
  ctx.groups.cp->all_gather(ctx.stream, padded_PX_, mine_EX, {what, ctx.layer});
  for (int64_t r = 0, begin = 0; r < cut_.size(); begin += count_R_[r++])
    ctx.ops.copy(ctx.stream, all_CX.rows(begin, begin + count_R_[r]), of_rank(r));
}

void EntryExchange::reduce(Ctx& ctx, View all_CX, const char* what) const {
  for (int64_t r = 0, begin = 0; r < cut_.size(); begin += count_R_[r++])
    ctx.ops.copy(ctx.stream, of_rank(r), all_CX.rows(begin, begin + count_R_[r]));
  const View mine_EX = padded_PX_.rows(cut_.rank * room_, (cut_.rank + 1) * room_);
  ctx.groups.cp->reduce_scatter(ctx.stream, mine_EX, padded_PX_, {what, ctx.layer});
}

}  // namespace temper::layers
