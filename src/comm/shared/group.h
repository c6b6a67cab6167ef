// The memory of one group of ranks in a block, made by its first rank.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "comm/doing.h"
#include "comm/shared/block.h"
#include "comm/shared/signal.h"

namespace temper::comm {

// What a rank writes for its group; the arrays are indexed by the parity of its stage.
struct Member {
  Signal arrived;  // stages that it has finished; nobody sleeps on it
  Doing call[2];
};

// Where a group meets. Who comes last to a stage raises `met`, so that a sleeper wakes up once.
struct Meeting {
  Signal met;
  alignas(128) std::atomic<uint32_t> num_arrived;  // at all stages together
};

// A message on its way from one rank to another.
struct Message {
  Doing sent;       // what the sender was doing
  int64_t payload;  // offset in the block
};

// Messages from one rank to another, in order.
struct Queue {
  static constexpr uint32_t kLength = 256;
  Signal sent, received;
  Message messages[kLength];
};

struct Group {
  // Bytes of a rank that are under way at a time. Two of these and as much of another's fit in a core's second cache.
  static constexpr int64_t kSlotBytes = 256 * 1024;

  static int64_t num_bytes(int64_t size);

  Block block;
  int64_t offset = 0, size = 0;

  Meeting& meeting() const;
  Member& member(int64_t rank) const;
  Queue& queue(int64_t from, int64_t to) const;
  // What a rank gives to the others, and what it hands back to them, at a stage of this parity.
  char* given(int64_t rank, uint32_t parity) const;
  char* reduced(int64_t rank, uint32_t parity) const;
};

}  // namespace temper::comm
