// A group whose ranks are not all on one machine. Every collective begins with the exchange of identities, so that a
// wait knows for whom; data then travel pair by pair, and each rank sums its piece in the tree of comm.h.
#pragma once

#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "comm/mpi/mpi_requests.h"
#include "comm/shared/rank.h"

namespace temper::comm {

class MpiComm : public Comm {
 public:
  // comm: the group's own; it is never freed, for that would be one more meeting. members: ranks of the world.
  MpiComm(std::shared_ptr<SharedRank> me, MPI_Comm comm, std::vector<int64_t> members, std::string_view name);
  // Until what it has sent is on its way.
  ~MpiComm() override;

  int64_t rank() const override { return rank_; }
  int64_t size() const override { return std::ssize(members_); }
  std::unique_ptr<Comm> split(int64_t color, int64_t key, std::string_view name) override;
  void barrier(backend::Stream* stream, Call call) override;
  void all_reduce(backend::Stream* stream, View x, Reduce reduce, Call call) override;
  void all_gather(backend::Stream* stream, View all, View mine, Call call) override;
  void reduce_scatter(backend::Stream* stream, View mine, View all, Call call) override;
  void all_to_all_v(backend::Stream* stream, View to, std::span<const int64_t> recv_rows, View from,
                    std::span<const int64_t> send_rows, Call call) override;
  void send(backend::Stream* stream, View x, int64_t to, Call call) override;
  void recv(backend::Stream* stream, View x, int64_t from, Call call) override;
  void abort(std::string_view why) noexcept override;
  void set_place(int64_t step, std::string_view instruction) override { me_->set_place(step, instruction); }
  void set_deadline(double seconds) override { me_->set_deadline(seconds); }
  Traffic traffic() const override { return traffic_; }

 private:
  // A message that has been sent and not yet taken over by MPI.
  struct Outgoing {
    Doing head;
    std::vector<char> data;
    Requests requests;
  };
  // Begins a call, and meets all ranks of the group.
  void enter(Identity id, int64_t num_bytes, const Call& call);
  void leave() { caller_.lane->end_call(); }
  template <class Work>
  void in_order(backend::Stream* stream, Work work) {
    call_in_order(*me_, stream, caller_, std::move(work));
  }
  void finish(Requests& requests);
  void exchange(std::span<const Parcel> received, std::span<const Parcel> sent, Tag tag);
  void sum_all(View x, Reduce reduce);
  void sum_own_piece(View mine, View all);
  void exchange_rows(View to, std::span<const int64_t> recv_rows, View from, std::span<const int64_t> send_rows);
  void gather_bytes(char* all, const char* mine, int64_t num_bytes);
  // mine [count] <- the sum over ranks of what they have in their pieces[rank()]; pieces of this rank: one per rank.
  void reduce_pieces(char* mine, std::span<const Parcel> pieces, int64_t count, DType dtype, Reduce reduce);

  const std::shared_ptr<SharedRank> me_;
  const MPI_Comm comm_;
  const std::vector<int64_t> members_;
  const std::string name_;
  int64_t rank_ = 0;
  Caller caller_;
  int64_t num_begun_ = 0;
  std::list<Outgoing> outgoing_;
  Traffic traffic_;
};

}  // namespace temper::comm
