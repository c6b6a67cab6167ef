#include "layers/dispatch.h"

#include <algorithm>
#include <numeric>

namespace temper::layers {
namespace {

// Calls body(begin, end, at) for each run [begin, end) of neighbours among the rows that a round sends, `at` the place
// of its first among those.
template <class Body>
void for_each_run(const DispatchRound& round, const Body& body) {
  int64_t at = 0;
  for (size_t r = 0; r < round.send_rows_S.size();) {
    const int64_t begin = round.send_begin_S[r];
    int64_t end = begin + round.send_rows_S[r];
    for (++r; r < round.send_rows_S.size() && (round.send_rows_S[r] == 0 || round.send_begin_S[r] == end); ++r)
      end += round.send_rows_S[r];
    if (begin < end) body(begin, end, at);
    at += end - begin;
  }
}

View upload(Ctx& ctx, View to, const std::vector<int32_t>& values) {
  const View view = to.first(static_cast<int64_t>(values.size()));
  if (!values.empty()) ctx.device.copy_to_device(ctx.stream, view, values.data());
  return view;
}

// Beside computation: returns the mark of its end. Otherwise null: what is enqueued later finds it done.
backend::Event* exchange(Ctx& ctx, View to, const std::vector<int64_t>& recv_rows, View from,
                         const std::vector<int64_t>& send_rows, const char* what) {
  const comm::Call call{what, ctx.layer};
  if (!ctx.beside) return ctx.groups.ep->all_to_all_v(ctx.stream, to, recv_rows, from, send_rows, call), nullptr;
  backend::Stream* stream = ctx.beside->after(ctx.device, ctx.stream);
  ctx.groups.ep_beside->all_to_all_v(stream, to, recv_rows, from, send_rows, call);
  return ctx.beside->mark();
}

void await(Ctx& ctx, const Dispatch::Transfer& transfer) {
  if (transfer.mark) ctx.beside->wait(ctx.device, ctx.stream, transfer.mark);
}

int64_t sum(const std::vector<int64_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

// A round that has all of this rank's rows brings them back to where they belong.
bool is_whole(const ExpertRows& rows) { return sum(rows.exchange->send_rows_S) == rows.token_P.dim(0); }

}  // namespace

Dispatch::Dispatch(DispatchDims dims, Dtypes dtypes) : dims_(dims), dtypes_(dtypes) {
  const ExpertPart& part = dims.part;
  CHECK(part.rank >= 0 && part.rank < part.size && dims.E % part.size == 0, part.rank, part.size, dims.E);
}

int64_t Dispatch::max_rows(int64_t max_tokens) const {
  const ExpertPart& part = dims_.part;
  return part.size > 1 && part.max_rows > 0 ? part.max_rows / kRowAlignment * kRowAlignment
                                            : most_expert_rows(part, max_tokens, dims_.E, dims_.K);
}

void Dispatch::declare_saved(Book& book, Saved& saved, const std::string& name, int64_t max_tokens) const {
  const int64_t T = max_tokens, K = dims_.K, P = is_exchange() ? T * K : max_rows(T);
  const auto declare = [&](View& view, const char* what, Shape shape) {
    book.declare(&view, TensorKind::kSaved, name + ":" + what, DType::kI32, shape);
  };
  declare(saved.offset_E1, "offset", {dims_.E + 1});
  declare(saved.row_token_P, "row_token", {P});
  declare(saved.row_slot_P, "row_slot", {P});
  declare(saved.slot_row_TK, "slot_row", {T, K});
  if (is_exchange()) declare(saved.count_SE, "count", {dims_.part.size, dims_.E});
}

void Dispatch::declare_scratch(Book& book, const std::string& name, int64_t max_tokens) {
  if (!is_exchange()) return;
  const int64_t P = max_tokens * dims_.K, R = max_rows(max_tokens), e = num_local_experts(), D = dims_.D;
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, name + ":" + what, dtype, shape);
  };
  declare(scratch_.hidden.send_PX, "send", dtypes_.act, {P, D});
  declare(scratch_.hidden.returned_PX, "returned", dtypes_.act, {P, D});
  declare(scratch_.hidden.recv_NX, "recv", dtypes_.act, {R, D});
  declare(scratch_.weights.send_PX, "send_weight", dtypes_.acc, {P, 1});
  declare(scratch_.weights.returned_PX, "returned_weight", dtypes_.acc, {P, 1});
  declare(scratch_.weights.recv_NX, "recv_weight", dtypes_.acc, {R, 1});
  declare(scratch_.offset_e1, "local_offset", DType::kI32, {e + 1});
  declare(scratch_.block_offset_B1, "block_offset", DType::kI32, {e * dims_.part.size + 1});
  declare(scratch_.from_R, "from", DType::kI32, {R});
  declare(scratch_.row_N, "row", DType::kI32, {R});
  declare(scratch_.position_TK, "position", DType::kI32, {max_tokens, dims_.K});
  book.declare(&position_E1_, TensorKind::kInput, name + ":positions", DType::kI64, {dims_.E, 1});
}

Dispatch::Saved Dispatch::first(const Saved& s, int64_t T) const {
  const int64_t P = is_exchange() ? T * dims_.K : max_rows(T);
  return {s.offset_E1, s.row_token_P.first(P), s.row_slot_P.first(P), s.slot_row_TK.first(T), s.count_SE};
}

void Dispatch::place(Ctx& ctx, std::span<const int32_t> position_E) {
  CHECK(is_exchange() && static_cast<int64_t>(position_E.size()) == dims_.E, position_E.size());
  const std::vector<int64_t> wide(position_E.begin(), position_E.end());
  ctx.device.copy_to_device(ctx.stream, position_E1_, wide.data());
  is_moved_ = true;
}

void Dispatch::plan(Ctx& ctx, const Saved& saved, View expert_TK) const {
  if (is_moved_) {  // from here on an expert is its position: a table is read by number, as that of a hash layer
    const View position_TK = scratch_.position_TK.first(expert_TK.dim(0));
    ctx.ops.router_hash(ctx.stream, position_TK.reshape({expert_TK.size(), 1}), position_E1_,
                        expert_TK.reshape({expert_TK.size()}));
    expert_TK = position_TK;
  }
  ctx.ops.dispatch_plan(ctx.stream, saved.offset_E1, saved.row_token_P, saved.row_slot_P, saved.slot_row_TK, expert_TK,
                        is_exchange() ? 1 : kRowAlignment);
  CHECK(comm::group_size(ctx.groups.ep) == dims_.part.size && comm::group_rank(ctx.groups.ep) == dims_.part.rank,
        comm::group_size(ctx.groups.ep), dims_.part.size);
  if (!is_exchange()) return;
  const View mine_E = saved.count_SE.rows(dims_.part.rank, dims_.part.rank + 1).reshape({dims_.E});
  ctx.ops.fill(ctx.stream, mine_E, 0);
  ctx.ops.expert_load(ctx.stream, mine_E, expert_TK);
  ctx.groups.ep->all_gather(ctx.stream, saved.count_SE.reshape({saved.count_SE.size()}), mine_E,
                            {"rows of experts", ctx.layer});
}

Dispatch::Rounds Dispatch::rounds(Ctx& ctx, const Saved& saved) const {
  if (!is_exchange()) return {};
  std::vector<int32_t> count_SE(saved.count_SE.size());
  ctx.device.copy_to_host(ctx.stream, count_SE.data(), saved.count_SE);
  const int64_t pairs = saved.slot_row_TK.size(), E = dims_.E;
  const auto mine = count_SE.begin() + dims_.part.rank * E;
  const int64_t num_mine = std::accumulate(mine, mine + E, int64_t{0});
  const bool is_told = std::any_of(count_SE.begin(), count_SE.end(), [](int32_t count) { return count != 0; });
  CHECK(num_mine == (is_told ? pairs : 0), ctx.layer, num_mine, pairs);
  if (!is_told)
    for (int64_t i = 0; i < saved.count_SE.size(); ++i)
      count_SE[i] = static_cast<int32_t>((i % E + 1) * pairs / E - i % E * pairs / E);
  ExpertPart part = dims_.part;
  part.max_rows = scratch_.from_R.dim(0);
  return make_dispatch_rounds(count_SE, part);
}

ExpertRows Dispatch::begin_round(Ctx& ctx, const Saved& saved, const Rounds& rounds, int64_t i) const {
  ExpertRows rows;
  rows.token_P = saved.row_token_P, rows.slot_P = saved.row_slot_P;
  if (!is_exchange()) {
    rows.count = saved.row_token_P.dim(0), rows.offset_e1 = saved.offset_E1;
    return rows;
  }
  const DispatchRound& round = rounds[i];
  rows.count = round.num_rows(), rows.exchange = &round;
  rows.offset_e1 = upload(ctx, scratch_.offset_e1, round.offset_e1);
  if (dims_.part.exact) rows.block_offset_B1 = upload(ctx, scratch_.block_offset_B1, round.block_offset_B1);
  upload(ctx, scratch_.from_R, round.from_R);
  upload(ctx, scratch_.row_N, round.row_N);
  return rows;
}

Dispatch::Transfer Dispatch::send(Ctx& ctx, View from_TX, View index_P, const Lane& lane, const ExpertRows& rows,
                                  const char* what) const {
  if (rows.exchange == nullptr) return {&lane, from_TX, index_P, nullptr};
  const DispatchRound& round = *rows.exchange;
  for_each_run(round, [&](int64_t begin, int64_t end, int64_t at) {
    ctx.ops.gather_rows(ctx.stream, lane.send_PX.rows(at, at + end - begin), from_TX, index_P.rows(begin, end));
  });
  return {&lane, from_TX, index_P,
          exchange(ctx, lane.recv_NX.first(round.num_received()), round.recv_rows_S,
                   lane.send_PX.first(sum(round.send_rows_S)), round.send_rows_S, what)};
}

void Dispatch::arrive(Ctx& ctx, View to_RX, const Transfer& transfer, const ExpertRows& rows) const {
  if (rows.exchange == nullptr) return ctx.ops.gather_rows(ctx.stream, to_RX, transfer.from, transfer.index_P);
  await(ctx, transfer);
  const View recv_NX = transfer.lane->recv_NX.first(rows.exchange->num_received());
  ctx.ops.gather_rows(ctx.stream, to_RX, recv_NX, scratch_.from_R.first(rows.count));
}

Dispatch::Transfer Dispatch::send_back(Ctx& ctx, View from_RX, const Lane& lane, const ExpertRows& rows,
                                       const char* what) const {
  if (rows.exchange == nullptr) return {&lane, from_RX, {}, nullptr};
  const DispatchRound& round = *rows.exchange;
  const View recv_NX = lane.recv_NX.first(round.num_received());
  ctx.ops.gather_rows(ctx.stream, recv_NX, from_RX, scratch_.row_N.first(round.num_received()));
  const View back_PX = (is_whole(rows) ? lane.returned_PX : lane.send_PX).first(sum(round.send_rows_S));
  return {&lane, from_RX, {}, exchange(ctx, back_PX, round.send_rows_S, recv_NX, round.recv_rows_S, what)};
}

View Dispatch::arrive_back(Ctx& ctx, const Transfer& transfer, const ExpertRows& rows) const {
  if (rows.exchange == nullptr) return transfer.from;
  await(ctx, transfer);
  const Lane& lane = *transfer.lane;
  if (!is_whole(rows)) {
    for_each_run(*rows.exchange, [&](int64_t begin, int64_t end, int64_t at) {
      ctx.ops.copy(ctx.stream, lane.returned_PX.rows(begin, end), lane.send_PX.rows(at, at + end - begin));
    });
  }
  return lane.returned_PX.first(rows.token_P.dim(0));
}

Dispatch::Transfer Dispatch::hidden_to_experts(Ctx& ctx, View from_TD, const ExpertRows& rows, const char* what) const {
  return send(ctx, from_TD, rows.token_P, scratch_.hidden, rows, what);
}

Dispatch::Transfer Dispatch::weights_to_experts(Ctx& ctx, View from_TK, const ExpertRows& rows,
                                                const char* what) const {
  return send(ctx, from_TK.reshape({from_TK.size(), 1}), rows.slot_P, scratch_.weights, rows, what);
}

Dispatch::Transfer Dispatch::hidden_from_experts(Ctx& ctx, View from_RD, const ExpertRows& rows,
                                                 const char* what) const {
  return send_back(ctx, from_RD, scratch_.hidden, rows, what);
}

Dispatch::Transfer Dispatch::weights_from_experts(Ctx& ctx, View from_R1, const ExpertRows& rows,
                                                  const char* what) const {
  return send_back(ctx, from_R1, scratch_.weights, rows, what);
}

}  // namespace temper::layers
