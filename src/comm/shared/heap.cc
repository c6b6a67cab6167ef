#include "comm/shared/heap.h"

#include "base/error.h"

namespace temper::comm {
namespace {

constexpr int64_t kAlign = 4096;

int64_t round_up(int64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

[[noreturn]] void fail_full(int64_t num_bytes) {
  fail(ErrorCode::kOutOfMemory,
       "a rank has more than {} GiB under way to others ({} bytes more were asked for); receive what was sent earlier",
       Block::kHeapBytes >> 30, num_bytes);
}

}  // namespace

SharedHeap::SharedHeap(const Block& block, int64_t rank)
    : begin_(Block::heap_begin(block.num_ranks(), rank)), end_(begin_ + Block::kHeapBytes) {}

int64_t SharedHeap::allocate_for_world(int64_t num_bytes) {
  std::lock_guard lock(mutex_);
  const int64_t used = messages_.empty() ? begin_ : messages_.back().end;
  if (end_ - round_up(num_bytes) < used) fail_full(num_bytes);
  return end_ -= round_up(num_bytes);
}

int64_t SharedHeap::allocate_message(int64_t num_bytes, const Signal& received, uint32_t number) {
  std::lock_guard lock(mutex_);
  std::erase_if(messages_, [](const Message& m) { return m.received->reached(m.number); });
  const int64_t size = round_up(num_bytes);
  int64_t begin = begin_;
  auto after = messages_.begin();
  while (after != messages_.end() && after->begin - begin < size) begin = (after++)->end;
  if (begin + size > end_) fail_full(num_bytes);
  messages_.insert(after, {.begin = begin, .end = begin + size, .received = &received, .number = number});
  return begin;
}

}  // namespace temper::comm
