// The collectives of MpiComm, all of them made of exchanges of parcels between pairs.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "comm/mpi/mpi_comm.h"
#include "comm/tree_sum.h"

namespace temper::comm {
namespace {

constexpr int64_t kChunkBytes = int64_t{8} << 20;  // of a sum that are under way at a time
constexpr int64_t kAtOnceBytes = 64 * 1024;        // sums of up to this much are formed by everyone

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::vector<int64_t> copy_of(std::span<const int64_t> x) { return {x.begin(), x.end()}; }

char* bytes_of(const View& x) { return static_cast<char*>(x.raw()); }

int64_t row_bytes(const View& x) {
  int64_t n = dtype_bytes(x.dtype);
  for (int i = 1; i < x.rank(); ++i) n *= x.dim(i);
  return n;
}

}  // namespace

void MpiComm::barrier(backend::Stream* stream, Call call) {
  in_order(stream, [=, this] {
    enter({.op = Op::kBarrier}, 0, call);
    leave();
  });
}

void MpiComm::gather_bytes(char* all, const char* mine, int64_t num_bytes) {
  std::vector<Parcel> received, sent;
  char* own = all + rank_ * num_bytes;
  if (num_bytes > 0 && own != mine) std::memcpy(own, mine, static_cast<size_t>(num_bytes));
  for (int64_t r = 0; r < size(); ++r) {
    received.push_back({r, all + r * num_bytes, num_bytes});
    sent.push_back({r, own, num_bytes});
  }
  exchange(received, sent, Tag::kData);
}

void MpiComm::reduce_pieces(char* mine, std::span<const Parcel> pieces, int64_t count, DType dtype, Reduce reduce) {
  const int64_t num_bytes = count * dtype_bytes(dtype);
  std::vector<char> others(static_cast<size_t>(num_bytes * size()));
  std::vector<Parcel> received;
  std::vector<const void*> sources;
  for (int64_t r = 0; r < size(); ++r) {
    received.push_back({r, others.data() + r * num_bytes, num_bytes});
    sources.push_back(r == rank_ ? pieces[static_cast<size_t>(r)].data : received.back().data);
  }
  exchange(received, pieces, Tag::kData);
  reduce_tree(mine, sources, count, dtype, reduce);
}

void MpiComm::all_reduce(backend::Stream* stream, View x, Reduce reduce, Call call) {
  CHECK(x.contiguous(), x.to_string());
  check_reducible(x.dtype, "all_reduce");
  in_order(stream, [=, this] {
    enter({.op = Op::kAllReduce, .dtype = x.dtype, .reduce = reduce, .num_bytes = x.num_bytes()}, x.num_bytes(), call);
    sum_all(x, reduce);
    leave();
  });
}

void MpiComm::sum_all(View x, Reduce reduce) {
  const int64_t width = dtype_bytes(x.dtype);
  if (x.num_bytes() <= kAtOnceBytes) {
    std::vector<char> all(static_cast<size_t>(x.num_bytes() * size()));
    gather_bytes(all.data(), bytes_of(x), x.num_bytes());
    std::vector<const void*> sources;
    for (int64_t r = 0; r < size(); ++r) sources.push_back(all.data() + r * x.num_bytes());
    return reduce_tree(x.raw(), sources, x.size(), x.dtype, reduce);
  }
  const int64_t chunk = kChunkBytes / width;
  for (int64_t begin = 0; begin < x.size(); begin += chunk) {
    const int64_t count = std::min(chunk, x.size() - begin);
    const int64_t step = divide_up(count, size());
    std::vector<Parcel> pieces;
    for (int64_t r = 0; r < size(); ++r) {
      const int64_t from = std::min(count, r * step), to = std::min(count, from + step);
      pieces.push_back({r, bytes_of(x) + (begin + from) * width, (to - from) * width});
    }
    const Parcel own = pieces[static_cast<size_t>(rank_)];
    reduce_pieces(own.data, pieces, own.num_bytes / width, x.dtype, reduce);
    std::vector<Parcel> sent;
    for (int64_t r = 0; r < size(); ++r) sent.push_back({r, own.data, own.num_bytes});
    exchange(pieces, sent, Tag::kData);
  }
}

void MpiComm::all_gather(backend::Stream* stream, View all, View mine, Call call) {
  CHECK(all.contiguous() && mine.contiguous() && all.num_bytes() == mine.num_bytes() * size(), all.to_string(),
        mine.to_string());
  in_order(stream, [=, this] {
    enter({.op = Op::kAllGather, .dtype = mine.dtype, .num_bytes = mine.num_bytes()}, all.num_bytes(), call);
    gather_bytes(bytes_of(all), bytes_of(mine), mine.num_bytes());
    leave();
  });
}

void MpiComm::reduce_scatter(backend::Stream* stream, View mine, View all, Call call) {
  CHECK(
      all.contiguous() && mine.contiguous() && all.num_bytes() == mine.num_bytes() * size() && all.dtype == mine.dtype,
      all.to_string(), mine.to_string());
  check_reducible(all.dtype, "reduce_scatter");
  in_order(stream, [=, this] {
    enter({.op = Op::kReduceScatter, .dtype = all.dtype, .num_bytes = all.num_bytes()}, all.num_bytes(), call);
    sum_own_piece(mine, all);
    leave();
  });
}

void MpiComm::sum_own_piece(View mine, View all) {
  const int64_t width = dtype_bytes(all.dtype);
  const int64_t step = std::max<int64_t>(1, kChunkBytes / width / size());
  for (int64_t begin = 0; begin < mine.size(); begin += step) {
    const int64_t count = std::min(step, mine.size() - begin);
    std::vector<Parcel> pieces;
    for (int64_t r = 0; r < size(); ++r) {
      pieces.push_back({r, bytes_of(all) + (r * mine.size() + begin) * width, count * width});
    }
    reduce_pieces(bytes_of(mine) + begin * width, pieces, count, all.dtype, Reduce::kSum);
  }
}

void MpiComm::all_to_all_v(backend::Stream* stream, View to, std::span<const int64_t> recv_rows, View from,
                           std::span<const int64_t> send_rows, Call call) {
  CHECK(to.contiguous() && from.contiguous() && to.dtype == from.dtype, to.to_string(), from.to_string());
  CHECK(std::ssize(recv_rows) == size() && std::ssize(send_rows) == size());
  const int64_t row = row_bytes(from);
  CHECK(row == row_bytes(to), to.to_string(), from.to_string());
  in_order(stream, [=, this, recv = copy_of(recv_rows), send = copy_of(send_rows)] {
    enter({.op = Op::kAllToAll, .dtype = from.dtype, .num_bytes = row}, from.num_bytes() + to.num_bytes(), call);
    exchange_rows(to, recv, from, send);
    leave();
  });
}

void MpiComm::exchange_rows(View to, std::span<const int64_t> recv_rows, View from,
                            std::span<const int64_t> send_rows) {
  const int64_t row = row_bytes(from);
  // What others have for this rank, before it waits for bytes that may not come.
  std::vector<int64_t> expected(members_.size(), send_rows[static_cast<size_t>(rank_)]);
  std::vector<int64_t> given(send_rows.begin(), send_rows.end());
  std::vector<Parcel> received, sent;
  for (int64_t r = 0; r < size(); ++r) {
    received.push_back({r, reinterpret_cast<char*>(&expected[static_cast<size_t>(r)]), sizeof(int64_t)});
    sent.push_back({r, reinterpret_cast<char*>(&given[static_cast<size_t>(r)]), sizeof(int64_t)});
  }
  exchange(received, sent, Tag::kData);
  for (int64_t r = 0; r < size(); ++r) {
    if (expected[static_cast<size_t>(r)] == recv_rows[static_cast<size_t>(r)]) continue;
    me_->fail_world([&] {
      return explain_rows(members_[static_cast<size_t>(r)], expected[static_cast<size_t>(r)], me_->rank(),
                          recv_rows[static_cast<size_t>(r)], caller_.lane->doing());
    });
  }
  received.clear();
  sent.clear();
  char* out = bytes_of(from);
  char* in = bytes_of(to);
  for (int64_t r = 0; r < size(); ++r) {
    sent.push_back({r, out, send_rows[static_cast<size_t>(r)] * row});
    received.push_back({r, in, recv_rows[static_cast<size_t>(r)] * row});
    out += sent.back().num_bytes;
    in += received.back().num_bytes;
  }
  const Parcel own = received[static_cast<size_t>(rank_)];
  if (own.num_bytes > 0) {
    std::memcpy(own.data, sent[static_cast<size_t>(rank_)].data, static_cast<size_t>(own.num_bytes));
  }
  exchange(received, sent, Tag::kData);
}

}  // namespace temper::comm
