#include "base/check.h"
#include "comm/world.h"

namespace temper::comm {
namespace {

class NullComm : public Comm {
 public:
  NullComm(int64_t rank, int64_t size) : rank_(rank), size_(size) { CHECK(rank >= 0 && rank < size, rank, size); }

  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }
  // Nobody knows who else would come; parallel/ranks.cc makes the groups of an imagined rank by its layout.
  std::unique_ptr<Comm> split(int64_t, int64_t, std::string_view) override {
    CHECK(false, "an imagined world cannot be split");
    return nullptr;
  }
  void barrier(backend::Stream*, Call) override { count(0); }
  void all_reduce(backend::Stream*, View x, Reduce, Call) override { count(x.num_bytes()); }
  void all_gather(backend::Stream*, View all, View, Call) override { count(all.num_bytes()); }
  void reduce_scatter(backend::Stream*, View, View all, Call) override { count(all.num_bytes()); }
  void all_to_all_v(backend::Stream*, View to, std::span<const int64_t> recv_rows, View from,
                    std::span<const int64_t> send_rows, Call) override {
    CHECK(std::ssize(recv_rows) == size_ && std::ssize(send_rows) == size_);
    CHECK(to.dtype == from.dtype, to.to_string(), from.to_string());
    count(from.num_bytes() + to.num_bytes());
  }
  void send(backend::Stream*, View x, int64_t, Call) override { count(x.num_bytes()); }
  void recv(backend::Stream*, View x, int64_t, Call) override { count(x.num_bytes()); }
  void abort(std::string_view) noexcept override {}
  void set_place(int64_t, std::string_view) override {}
  void set_deadline(double) override {}
  Traffic traffic() const override { return traffic_; }

 private:
  void count(int64_t num_bytes) { traffic_.num_calls += 1, traffic_.num_bytes += num_bytes; }

  const int64_t rank_, size_;
  Traffic traffic_;
};

}  // namespace

std::unique_ptr<Comm> null_comm(int64_t rank, int64_t size) { return std::make_unique<NullComm>(rank, size); }

}  // namespace temper::comm
