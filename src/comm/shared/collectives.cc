// The collectives of SharedComm: what a rank does in each stage.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "comm/shared/shared_comm.h"
#include "comm/tree_sum.h"

namespace temper::comm {
namespace {

// Up to this much on all ranks together, everyone sums everything rather than meet once more.
constexpr int64_t kAtOnceBytes = 128 * 1024;
static_assert(kAtOnceBytes <= Group::kSlotBytes);

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// Part i of [0, count) cut every `step`; empty past the end.
Range part(int64_t count, int64_t step, int64_t i) {
  return {std::min(count, step * i), std::min(count, step * (i + 1))};
}

// Empty ranges stay within a.
Range overlap(Range a, Range b) {
  const int64_t begin = std::clamp(b.begin, a.begin, a.end);
  return {begin, std::clamp(b.end, begin, a.end)};
}

void copy(char* to, const char* from, int64_t num_bytes) {
  if (num_bytes > 0 && to != from) std::memcpy(to, from, static_cast<size_t>(num_bytes));
}

int64_t row_bytes(const View& x) {
  int64_t n = dtype_bytes(x.dtype);
  for (int i = 1; i < x.rank(); ++i) n *= x.dim(i);
  return n;
}

std::vector<int64_t> copy_of(std::span<const int64_t> x) { return {x.begin(), x.end()}; }

char* bytes_of(const View& x) { return static_cast<char*>(x.raw()); }

}  // namespace

void SharedComm::barrier(backend::Stream* stream, Call call) {
  in_order(stream, [=, this] {
    enter({.op = Op::kBarrier}, 0, call);
    meet();
    check_agreement();
    leave();
  });
}

void SharedComm::all_reduce(backend::Stream* stream, View x, Reduce reduce, Call call) {
  CHECK(x.contiguous());
  check_reducible(x.dtype, "all_reduce");
  in_order(stream, [=, this] {
    enter({.op = Op::kAllReduce, .dtype = x.dtype, .reduce = reduce, .num_bytes = x.num_bytes()}, x.num_bytes(), call);
    if (x.num_bytes() * group_.size <= kAtOnceBytes) {
      reduce_at_once(x, reduce);
    } else {
      reduce_by_pieces(x, reduce);
    }
    leave();
  });
}

// Small tensors: everyone sums everything, after one meeting.
void SharedComm::reduce_at_once(View x, Reduce reduce) {
  const uint32_t slot = parity(0);
  copy(group_.given(rank_, slot), bytes_of(x), x.num_bytes());
  meet();
  check_agreement();
  for (int64_t r = 0; r < group_.size; ++r) sources_[r] = group_.given(r, slot);
  reduce_tree(x.raw(), sources_, x.size(), x.dtype, reduce);
}

// Each rank sums its piece of a chunk. Stage k: give chunk k, sum my piece of chunk k - 1, take the others' sums of
// chunk k - 2.
void SharedComm::reduce_by_pieces(View x, Reduce reduce) {
  const int64_t width = dtype_bytes(x.dtype);
  const int64_t chunk = Group::kSlotBytes / width;
  const int64_t num_chunks = std::max<int64_t>(1, divide_up(x.size(), chunk));
  const uint32_t first = parity(0);
  const auto slot = [&](int64_t k) { return (first + static_cast<uint32_t>(k)) % 2; };
  // Piece of rank r of chunk k, within the chunk; cut at cache lines.
  const auto piece = [&](int64_t k, int64_t r) {
    const int64_t count = part(x.size(), chunk, k).size();
    return part(count, divide_up(divide_up(count, group_.size) * width, 64) * 64 / width, r);
  };
  const auto at = [&](int64_t k, Range p) { return bytes_of(x) + (k * chunk + p.begin) * width; };
  const auto take = [&](int64_t k) {
    for (int64_t r = 0; r < group_.size; ++r) {
      const Range p = piece(k, r);
      if (r != rank_) copy(at(k, p), group_.reduced(r, slot(k)), p.size() * width);
    }
  };
  for (int64_t k = 0; k <= num_chunks; ++k) {
    if (k < num_chunks) {
      for (int64_t r = 0; r < group_.size; ++r) {
        const Range p = piece(k, r);
        if (r != rank_) copy(group_.given(rank_, slot(k)) + p.begin * width, at(k, p), p.size() * width);
      }
    }
    if (k > 0) {
      const Range p = piece(k - 1, rank_);
      for (int64_t r = 0; r < group_.size; ++r) sources_[r] = group_.given(r, slot(k - 1)) + p.begin * width;
      sources_[rank_] = at(k - 1, p);
      reduce_tree(at(k - 1, p), sources_, p.size(), x.dtype, reduce);
      copy(group_.reduced(rank_, slot(k - 1)), at(k - 1, p), p.size() * width);
    }
    if (k > 1) take(k - 2);
    meet();
    if (k == 0) check_agreement();
  }
  take(num_chunks - 1);
}

void SharedComm::all_gather(backend::Stream* stream, View all, View mine, Call call) {
  CHECK(all.contiguous() && mine.contiguous() && all.num_bytes() == mine.num_bytes() * group_.size, all.to_string(),
        mine.to_string());
  in_order(stream, [=, this] {
    enter({.op = Op::kAllGather, .dtype = mine.dtype, .num_bytes = mine.num_bytes()}, all.num_bytes(), call);
    gather_bytes(bytes_of(all), bytes_of(mine), mine.num_bytes());
    leave();
  });
}

// Stage k: give chunk k, take the others' chunks k - 1.
void SharedComm::gather_bytes(char* all, const char* mine, int64_t num_bytes) {
  const int64_t num_chunks = std::max<int64_t>(1, divide_up(num_bytes, Group::kSlotBytes));
  const uint32_t first = parity(0);
  const auto slot = [&](int64_t k) { return (first + static_cast<uint32_t>(k)) % 2; };
  for (int64_t k = 0; k <= num_chunks; ++k) {
    const Range given = part(num_bytes, Group::kSlotBytes, k);
    copy(group_.given(rank_, slot(k)), mine + given.begin, given.size());
    if (k > 0) {
      const Range taken = part(num_bytes, Group::kSlotBytes, k - 1);
      for (int64_t r = 0; r < group_.size; ++r) {
        const char* from = r == rank_ ? mine + taken.begin : group_.given(r, slot(k - 1));
        copy(all + r * num_bytes + taken.begin, from, taken.size());
      }
    }
    if (k < num_chunks) meet();
    if (k == 0) check_agreement();
  }
}

void SharedComm::reduce_scatter(backend::Stream* stream, View mine, View all, Call call) {
  CHECK(all.contiguous() && mine.contiguous() && all.num_bytes() == mine.num_bytes() * group_.size &&
            all.dtype == mine.dtype,
        all.to_string(), mine.to_string());
  check_reducible(all.dtype, "reduce_scatter");
  in_order(stream, [=, this] {
    enter({.op = Op::kReduceScatter, .dtype = all.dtype, .num_bytes = all.num_bytes()}, all.num_bytes(), call);
    sum_own_piece(mine, all);
    leave();
  });
}

void SharedComm::sum_own_piece(View mine, View all) {
  const int64_t width = dtype_bytes(all.dtype);
  const int64_t count = mine.size();
  const int64_t step = Group::kSlotBytes / group_.size / 64 * 64 / width;  // of each piece at a time
  const int64_t num_chunks = std::max<int64_t>(1, divide_up(count, step));
  const uint32_t first = parity(0);
  const auto slot = [&](int64_t k) { return (first + static_cast<uint32_t>(k)) % 2; };
  // Stage k: give part k of everyone's piece, sum part k - 1 of mine.
  for (int64_t k = 0; k <= num_chunks; ++k) {
    const Range given = part(count, step, k);
    for (int64_t r = 0; r < group_.size; ++r) {
      const char* from = bytes_of(all) + (r * count + given.begin) * width;
      if (r != rank_) copy(group_.given(rank_, slot(k)) + r * step * width, from, given.size() * width);
    }
    if (k > 0) {
      const Range summed = part(count, step, k - 1);
      for (int64_t r = 0; r < group_.size; ++r) sources_[r] = group_.given(r, slot(k - 1)) + rank_ * step * width;
      sources_[rank_] = bytes_of(all) + (rank_ * count + summed.begin) * width;
      reduce_tree(bytes_of(mine) + summed.begin * width, sources_, summed.size(), all.dtype, Reduce::kSum);
    }
    if (k < num_chunks) meet();
    if (k == 0) check_agreement();
  }
}

std::vector<int64_t> SharedComm::exchange_counts(std::span<const int64_t> recv_rows,
                                                 std::span<const int64_t> send_rows) {
  std::vector<int64_t> counts(static_cast<size_t>(group_.size * group_.size));
  gather_bytes(reinterpret_cast<char*>(counts.data()), reinterpret_cast<const char*>(send_rows.data()),
               group_.size * static_cast<int64_t>(sizeof(int64_t)));
  for (int64_t r = 0; r < group_.size; ++r) {
    const int64_t sent = counts[static_cast<size_t>(r * group_.size + rank_)];
    if (sent == recv_rows[r]) continue;
    me_->fail_world([&] { return explain_rows(members_[r], sent, me_->rank(), recv_rows[r], caller_.lane->doing()); });
  }
  return counts;
}

void SharedComm::all_to_all_v(backend::Stream* stream, View to, std::span<const int64_t> recv_rows, View from,
                              std::span<const int64_t> send_rows, Call call) {
  CHECK(to.contiguous() && from.contiguous() && to.dtype == from.dtype, to.to_string(), from.to_string());
  CHECK(std::ssize(recv_rows) == group_.size && std::ssize(send_rows) == group_.size);
  const int64_t row = row_bytes(from);
  CHECK(row == row_bytes(to), to.to_string(), from.to_string());
  in_order(stream, [=, this, recv = copy_of(recv_rows), send = copy_of(send_rows)] {
    enter({.op = Op::kAllToAll, .dtype = from.dtype, .num_bytes = row}, from.num_bytes() + to.num_bytes(), call);
    exchange_rows(to, recv, from, send);
    leave();
  });
}

void SharedComm::exchange_rows(View to, std::span<const int64_t> recv_rows, View from,
                               std::span<const int64_t> send_rows) {
  const int64_t row = row_bytes(from);
  const std::vector<int64_t> counts = exchange_counts(recv_rows, send_rows);
  // What a rank sends to others, without what it keeps, is a stream of bytes in the order of their ranks. parts[s] is
  // what stands in the stream of rank s for this one; num_chunks those of the longest stream.
  std::vector<Range> parts;
  int64_t num_chunks = 0;
  for (int64_t s = 0; s < group_.size; ++s) {
    int64_t begin = 0, total = 0;
    for (int64_t d = 0; d < group_.size; ++d) {
      if (d == s) continue;
      const int64_t bytes = counts[static_cast<size_t>(s * group_.size + d)] * row;
      begin += d < rank_ ? bytes : 0;
      total += bytes;
    }
    parts.push_back({begin, begin + (s == rank_ ? 0 : recv_rows[static_cast<size_t>(s)] * row)});
    num_chunks = std::max(num_chunks, divide_up(total, Group::kSlotBytes));
  }
  const int64_t before = parts[static_cast<size_t>(rank_)].begin;  // of the own stream, before what stays here
  const int64_t kept = send_rows[static_cast<size_t>(rank_)] * row;
  const uint32_t first = parity(0);
  const auto slot = [&](int64_t k) { return (first + static_cast<uint32_t>(k)) % 2; };
  const auto give = [&](int64_t k) {
    const int64_t begin = k * Group::kSlotBytes;
    const Range chunk = overlap({begin, begin + Group::kSlotBytes}, {0, from.num_bytes() - kept});
    const Range low = overlap(chunk, {0, before}), high = overlap(chunk, {before, chunk.end});
    char* to_slot = group_.given(rank_, slot(k));
    copy(to_slot + low.begin - begin, bytes_of(from) + low.begin, low.size());
    copy(to_slot + high.begin - begin, bytes_of(from) + kept + high.begin, high.size());
  };
  const auto take = [&](int64_t k) {
    char* at = bytes_of(to);
    for (int64_t s = 0; s < group_.size; ++s) {
      const Range mine = parts[static_cast<size_t>(s)];
      const Range taken = overlap({k * Group::kSlotBytes, (k + 1) * Group::kSlotBytes}, mine);
      copy(at + taken.begin - mine.begin, group_.given(s, slot(k)) + taken.begin - k * Group::kSlotBytes, taken.size());
      at += recv_rows[static_cast<size_t>(s)] * row;
    }
  };
  int64_t rows_before = 0;
  for (int64_t s = 0; s < rank_; ++s) rows_before += recv_rows[static_cast<size_t>(s)];
  copy(bytes_of(to) + rows_before * row, bytes_of(from) + before, kept);
  // Stage k: give chunk k, take the others' chunks k - 1.
  for (int64_t k = 0; k <= num_chunks; ++k) {
    if (k < num_chunks) give(k);
    if (k > 0) take(k - 1);
    if (k < num_chunks) meet();
  }
}

}  // namespace temper::comm
