// A rank's part of the block, given out by that rank only: payloads of messages from the bottom, used again when their
// receivers have them; the memory of groups from the top, kept until the world ends. Any thread of the rank may ask.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "comm/shared/block.h"
#include "comm/shared/signal.h"

namespace temper::comm {

class SharedHeap {
 public:
  SharedHeap(const Block& block, int64_t rank);

  // Zeros. Throws kOutOfMemory.
  int64_t allocate_for_world(int64_t num_bytes);
  // Kept until received has reached number.
  int64_t allocate_message(int64_t num_bytes, const Signal& received, uint32_t number);

 private:
  struct Message {
    int64_t begin, end;
    const Signal* received;
    uint32_t number;
  };
  std::mutex mutex_;
  int64_t begin_, end_;            // of what is not given to groups
  std::vector<Message> messages_;  // by place
};

}  // namespace temper::comm
