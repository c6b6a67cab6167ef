// A number that one rank raises and others wait for, in memory that both see.
#pragma once

#include <atomic>
#include <cstdint>

namespace temper::comm {

// Alone on its cache lines (two: neighbours are fetched in pairs). Zero bytes are a valid Signal.
struct alignas(128) Signal {
  std::atomic<uint32_t> value;
  std::atomic<uint32_t> num_asleep;

  // Numbers wrap; the difference tells which is later.
  bool reached(uint32_t target) const {
    return static_cast<int32_t>(value.load(std::memory_order_acquire) - target) >= 0;
  }
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

// Publishes everything that this thread wrote before.
void raise(Signal& signal, uint32_t value);

// Sleeps until the signal has reached target, or some milliseconds have passed.
void sleep_on(Signal& signal, uint32_t target);

}  // namespace temper::comm
