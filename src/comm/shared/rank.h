// One rank of a block: what all its groups have in common. It tells the others what it does, waits for them with a
// deadline, and knows how to fail. Ranks are those of the world, of which the block may hold a part.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/doing.h"
#include "comm/shared/block.h"
#include "comm/shared/heap.h"
#include "comm/shared/signal.h"

namespace temper::comm {

// How a rank of a block stands in the world.
struct Standing {
  int64_t block_rank = 0;
  int64_t process = 0;  // 0: ranks are threads
  // How the process of a rank of the block looks from outside.
  std::function<Life(int64_t block_rank)> life_of;
  std::vector<int64_t> world_ranks;  // of the block's ranks
  int64_t world_size = 0;
  // Where the world has other blocks: fills in what their ranks are doing; tells them that the world has failed.
  std::function<void(std::span<RankReport> by_rank)> ask_elsewhere;
  std::function<void(std::string_view verdict)> tell_elsewhere;
};
Standing alone_in_world(int64_t rank, int64_t world_size);  // threads: the block is the world

class SharedRank {
 public:
  SharedRank(Block block, Standing standing);
  SharedRank(const SharedRank&) = delete;
  SharedRank& operator=(const SharedRank&) = delete;
  ~SharedRank();

  int64_t rank() const { return standing_.world_ranks[static_cast<size_t>(standing_.block_rank)]; }
  const Standing& standing() const { return standing_; }
  const Block& block() const { return block_; }
  SharedHeap& heap() { return heap_; }
  const Doing& doing() const { return doing_; }
  void set_place(int64_t step, std::string_view instruction);
  void set_deadline(double seconds) { deadline_seconds_ = seconds; }

  // A call of one of its groups: id's place is filled in here. Throws kPeer if the world has failed.
  void begin_call(std::string_view group, int64_t call, Identity& id, const Call& what);
  void end_call();

  // Until the signal has reached target. whom: the rank that is waited for, asked only when the wait is long. Returns
  // the seconds waited. Throws kPeer when the world fails, when that rank is gone or has left, or after the deadline.
  double wait(Signal& signal, uint32_t target, const std::function<int64_t()>& whom);
  // The same for what must be asked again and again.
  double wait(const std::function<bool()>& ready, int64_t whom);

  // Fails the world with this text, or with that of the rank that was first.
  [[noreturn]] void fail_world(const std::function<std::string()>& text);
  void post_verdict(std::string_view text) noexcept;
  void take_verdict(std::string_view text) noexcept;  // from elsewhere
  bool failed() const { return block_.verdict().claimed.load(std::memory_order_acquire) != 0; }
  std::vector<RankReport> reports() const;        // of the world, by rank
  std::vector<RankReport> block_reports() const;  // by block rank

 private:
  void publish(State state, int64_t waits_for);
  double wait_long(const std::function<bool()>& ready, const std::function<void()>& sleep,
                   const std::function<int64_t()>& whom, double start);
  void throw_if_failed() const;
  bool will_not_come(int64_t whom) const;
  void publish_verdict(std::string_view text) noexcept;

  const Block block_;
  const Standing standing_;
  SharedHeap heap_;
  const double spin_seconds_;
  Doing doing_;
  int64_t step_ = -1;
  uint64_t hash_instruction_ = 0;
  double deadline_seconds_ = 60;
};

}  // namespace temper::comm
