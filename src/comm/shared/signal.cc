#include "comm/shared/signal.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace temper::comm {
namespace {

// Bounds how late a sleeper sees what nobody wakes it for: a failure elsewhere.
constexpr long kLongestSleepNs = 4'000'000;

// Not the private kind: ranks may be processes.
void futex(std::atomic<uint32_t>& word, int what, uint32_t value, const timespec* timeout) {
  syscall(SYS_futex, &word, what, value, timeout, nullptr, 0);
}

}  // namespace

void raise(Signal& signal, uint32_t value) {
  // Sequentially consistent, as are the sleeper's steps: either it sees the value or we see it asleep.
  signal.value.store(value, std::memory_order_seq_cst);
  if (signal.num_asleep.load(std::memory_order_seq_cst) > 0) futex(signal.value, FUTEX_WAKE, INT_MAX, nullptr);
}

void sleep_on(Signal& signal, uint32_t target) {
  signal.num_asleep.fetch_add(1, std::memory_order_seq_cst);
  const uint32_t seen = signal.value.load(std::memory_order_seq_cst);
  if (static_cast<int32_t>(seen - target) < 0) {
    const timespec timeout{.tv_sec = 0, .tv_nsec = kLongestSleepNs};
    futex(signal.value, FUTEX_WAIT, seen, &timeout);
  }
  signal.num_asleep.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace temper::comm
