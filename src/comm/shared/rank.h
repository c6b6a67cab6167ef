// One rank of a block: what all its groups have in common. It tells the others what it does, waits for them with a
// deadline, and knows how to fail.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "comm/doing.h"
#include "comm/shared/block.h"
#include "comm/shared/heap.h"
#include "comm/shared/signal.h"

namespace temper::comm {

class SharedRank {
 public:
  using LifeOf = std::function<Life(int64_t rank)>;

  // life_of: how the process of a rank looks from outside. process: this one's number; 0: ranks are threads.
  SharedRank(Block block, int64_t rank, int64_t process, LifeOf life_of);
  SharedRank(const SharedRank&) = delete;
  SharedRank& operator=(const SharedRank&) = delete;
  ~SharedRank();

  int64_t rank() const { return rank_; }
  const Block& block() const { return block_; }
  SharedHeap& heap() { return heap_; }
  const Doing& doing() const { return doing_; }
  void set_place(int64_t step, std::string_view instruction);
  void set_deadline(double seconds) { deadline_seconds_ = seconds; }

  // A call of one of its groups: id's place is filled in here. Throws kPeer if the world has failed.
  void begin_call(std::string_view group, int64_t call, Identity& id, const Call& what);
  void end_call();

  // Until the signal has reached target, which `whom` raises. Returns the seconds waited. Throws kPeer when the world
  // fails, when that rank is gone or has left, or after the deadline.
  double wait(Signal& signal, uint32_t target, int64_t whom);

  // Fails the world with this text, or with that of the rank that was first.
  [[noreturn]] void fail_world(std::string_view text);
  void post_verdict(std::string_view text) noexcept;
  std::vector<RankReport> reports() const;

 private:
  void publish(State state, int64_t waits_for);
  double wait_long(Signal& signal, uint32_t target, int64_t whom, double start);
  void throw_if_failed() const;
  bool will_not_come(int64_t whom) const;

  const Block block_;
  const int64_t rank_;
  const LifeOf life_of_;
  SharedHeap heap_;
  Doing doing_;
  int64_t step_ = -1;
  uint64_t hash_instruction_ = 0;
  double deadline_seconds_ = 60;
};

}  // namespace temper::comm
