#include "comm/shared/group.h"

namespace temper::comm {
namespace {

constexpr int64_t kPage = 4096;
int64_t round_up(int64_t n) { return (n + kPage - 1) / kPage * kPage; }

int64_t slots_begin(int64_t size) {
  return round_up(static_cast<int64_t>(sizeof(Meeting)) + size * static_cast<int64_t>(sizeof(Member)));
}
int64_t queues_begin(int64_t size) { return slots_begin(size) + 4 * size * Group::kSlotBytes; }

}  // namespace

int64_t Group::num_bytes(int64_t size) {
  return queues_begin(size) + size * size * static_cast<int64_t>(sizeof(Queue));
}

Meeting& Group::meeting() const { return *reinterpret_cast<Meeting*>(block.at(offset)); }

Member& Group::member(int64_t rank) const {
  return reinterpret_cast<Member*>(block.at(offset + static_cast<int64_t>(sizeof(Meeting))))[rank];
}

Queue& Group::queue(int64_t from, int64_t to) const {
  return reinterpret_cast<Queue*>(block.at(offset + queues_begin(size)))[from * size + to];
}

char* Group::given(int64_t rank, uint32_t parity) const {
  return block.at(offset + slots_begin(size) + (4 * rank + parity) * kSlotBytes);
}

char* Group::reduced(int64_t rank, uint32_t parity) const {
  return block.at(offset + slots_begin(size) + (4 * rank + 2 + parity) * kSlotBytes);
}

}  // namespace temper::comm
