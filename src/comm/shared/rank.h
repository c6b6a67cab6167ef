// One rank of a block: what all its groups have in common. It tells the others what it does, and knows how to fail the
// world. Ranks are those of the world, of which the block may hold a part.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/device.h"
#include "comm/doing.h"
#include "comm/shared/block.h"
#include "comm/shared/heap.h"
#include "comm/shared/lane.h"

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
  Lane& lane(LaneKind kind) { return lanes_[static_cast<size_t>(kind)]; }
  // Of the computing thread.
  void set_place(int64_t step, std::string_view instruction);
  const Place& place() const { return place_; }
  void set_deadline(double seconds) { deadline_seconds_ = seconds; }
  double deadline_seconds() const { return deadline_seconds_; }
  // A lane is doing this. Others read of the rank what its computing lane does, or, unless that waits for somebody
  // itself, for whom the other one waits.
  void show(LaneKind kind, const Doing& doing);

  // Fails the world with this text, or with that of the rank that was first.
  [[noreturn]] void fail_world(const std::function<std::string()>& text);
  void post_verdict(std::string_view text) noexcept;
  void take_verdict(std::string_view text) noexcept;  // from elsewhere
  bool failed() const { return block_.verdict().claimed.load(std::memory_order_acquire) != 0; }
  void throw_if_failed() const;
  // Whether a rank that is waited for has gone, or has left.
  bool will_not_come(int64_t whom) const;
  std::vector<RankReport> reports() const;        // of the world, by rank
  std::vector<RankReport> block_reports() const;  // by block rank

 private:
  void publish_verdict(std::string_view text) noexcept;

  const Block block_;
  const Standing standing_;
  SharedHeap heap_;
  std::mutex show_mutex_;
  std::array<Doing, 2> shown_;  // by lane
  Place place_;
  std::atomic<double> deadline_seconds_ = 60;
  std::array<Lane, 2> lanes_;
};

// Does a call of a group in the order of its stream: at once, or by the thread of a stream for communication. caller:
// the group's; it makes its calls one at a time.
template <class Work>
void call_in_order(SharedRank& rank, backend::Stream* stream, Caller& caller, Work work) {
  if (!stream || !stream->enqueue) {
    caller = {&rank.lane(LaneKind::kComputing), rank.place()};
    return work();
  }
  stream->enqueue(stream, [&rank, &caller, place = rank.place(), work = std::move(work)] {
    caller = {&rank.lane(LaneKind::kBeside), place};
    work();
  });
}

}  // namespace temper::comm
