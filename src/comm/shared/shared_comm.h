// A group of ranks that see one block of memory.
//
// Tensors pass through slots of the block in chunks. Work goes in stages: in a stage every rank fills one of its two
// slots and uses what the others filled in the stage before, then all meet; so a slot is not filled again before
// everybody has used it, within a collective and from one to the next. A wait costs nothing when the others are there.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "comm/shared/group.h"
#include "comm/shared/rank.h"

namespace temper::comm {

class SharedComm : public Comm {
 public:
  // The group of all ranks of a block. Everyone calls it once.
  static std::unique_ptr<Comm> world(std::shared_ptr<SharedRank> me);
  // members: ranks of the block, this one at `rank`.
  SharedComm(std::shared_ptr<SharedRank> me, Group group, int64_t rank, std::vector<int64_t> members,
             std::string_view name);

  int64_t rank() const override { return rank_; }
  int64_t size() const override { return group_.size; }
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
  // Begins a call; the identity is compared at its first meeting.
  void enter(Identity id, int64_t num_bytes, const Call& call);
  void leave() { caller_.lane->end_call(); }
  template <class Work>
  void in_order(backend::Stream* stream, Work work) {
    call_in_order(*me_, stream, caller_, std::move(work));
  }
  // Publishes what this rank did in the stage and waits until all have done theirs.
  void meet();
  int64_t first_missing() const;  // of the world
  void check_agreement();
  uint32_t parity(int64_t later) const { return (stage_ + static_cast<uint32_t>(later)) % 2; }

  void gather_bytes(char* all, const char* mine, int64_t num_bytes);
  void reduce_at_once(View x, Reduce reduce);
  void reduce_by_pieces(View x, Reduce reduce);
  void sum_own_piece(View mine, View all);
  void exchange_rows(View to, std::span<const int64_t> recv_rows, View from, std::span<const int64_t> send_rows);
  std::vector<int64_t> exchange_counts(std::span<const int64_t> recv_rows, std::span<const int64_t> send_rows);

  const std::shared_ptr<SharedRank> me_;
  const Group group_;
  const int64_t rank_;
  const std::vector<int64_t> members_;
  const std::string name_;
  uint32_t stage_ = 0;
  Caller caller_;
  int64_t num_begun_ = 0;
  std::vector<const void*> sources_;  // of a sum, by rank
  Traffic traffic_;
};

}  // namespace temper::comm
