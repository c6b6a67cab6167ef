#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "comm/world.h"

namespace temper::comm {
namespace {

template <class Work>
void in_order(backend::Stream* stream, Work work) {
  if (!stream || !stream->enqueue) return work();
  stream->enqueue(stream, std::move(work));
}

class SelfComm : public Comm {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  std::unique_ptr<Comm> split(int64_t, int64_t, std::string_view) override { return self_comm(); }
  void barrier(backend::Stream* stream, Call) override {
    in_order(stream, [this] { count(0); });
  }
  void all_reduce(backend::Stream* stream, View x, Reduce, Call) override {
    in_order(stream, [=, this] { count(x.num_bytes()); });
  }
  void all_gather(backend::Stream* stream, View all, View mine, Call) override {
    in_order(stream, [=, this] { copy(all, mine); });
  }
  void reduce_scatter(backend::Stream* stream, View mine, View all, Call) override {
    in_order(stream, [=, this] { copy(mine, all); });
  }
  void all_to_all_v(backend::Stream* stream, View to, std::span<const int64_t> recv_rows, View from,
                    std::span<const int64_t> send_rows, Call call) override {
    CHECK(std::ssize(recv_rows) == 1 && std::ssize(send_rows) == 1);
    if (recv_rows[0] != send_rows[0]) {
      fail(ErrorCode::kPeer, "rank 0 sends {} rows to itself and expects {}: {}", send_rows[0], recv_rows[0],
           call.what);
    }
    in_order(stream, [=, this, rows = recv_rows[0]] { copy(to.first(rows), from.first(rows)); });
  }
  void send(backend::Stream* stream, View x, int64_t to, Call) override {
    CHECK(x.contiguous() && to == 0, x.to_string(), to);
    in_order(stream, [=, this] {
      const char* begin = static_cast<const char*>(x.raw());
      messages_.emplace_back(begin, begin + x.num_bytes());
      count(x.num_bytes());
    });
  }
  void recv(backend::Stream* stream, View x, int64_t from, Call call) override {
    CHECK(x.contiguous() && from == 0, x.to_string(), from);
    in_order(stream, [=, this] { take_message(x, call); });
  }
  void abort(std::string_view) noexcept override {}
  void set_place(int64_t, std::string_view) override {}
  void set_deadline(double) override {}
  Traffic traffic() const override { return traffic_; }

 private:
  void copy(const View& to, const View& from) {
    CHECK(to.contiguous() && from.contiguous() && to.num_bytes() == from.num_bytes(), to.to_string(), from.to_string());
    if (to.raw() != from.raw())
      std::copy_n(static_cast<const char*>(from.raw()), to.num_bytes(), static_cast<char*>(to.raw()));
    count(to.num_bytes());
  }
  void take_message(View x, Call call) {
    if (messages_.empty() || std::ssize(messages_.front()) != x.num_bytes()) {
      fail(ErrorCode::kPeer, "rank 0 waits for {} bytes from itself that it has not sent: {}", x.num_bytes(),
           call.what);
    }
    std::copy(messages_.front().begin(), messages_.front().end(), static_cast<char*>(x.raw()));
    messages_.pop_front();
    count(x.num_bytes());
  }
  void count(int64_t num_bytes) {
    traffic_.num_calls += 1;
    traffic_.num_bytes += num_bytes;
  }

  std::deque<std::vector<char>> messages_;
  Traffic traffic_;
};

}  // namespace

std::unique_ptr<Comm> self_comm() { return std::make_unique<SelfComm>(); }

}  // namespace temper::comm
