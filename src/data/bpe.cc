#include "data/bpe.h"

#include <bit>
#include <queue>
#include <utility>

namespace temper::data {
namespace {

// Up to here the quadratic scan beats the heap.
constexpr size_t kShortPiece = 48;
constexpr int32_t kNoRank = INT32_MAX;

uint64_t mix(uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15u;
  return pair ^ pair >> 32;
}

}  // namespace

BytePairEncoder::BytePairEncoder(const std::array<int32_t, 256>& byte_ids, const std::vector<Merge>& merges,
                                 std::vector<std::string> token_bytes, bool ignore_merges)
    : byte_ids_(byte_ids), token_bytes_(std::move(token_bytes)) {
  table_.resize(std::bit_ceil(2 * merges.size() + 2));
  mask_ = table_.size() - 1;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t pair = key(merges[rank].left, merges[rank].right);
    uint64_t at = mix(pair) & mask_;
    while (table_[at].pair != kEmpty && table_[at].pair != pair) at = (at + 1) & mask_;
    table_[at] = {pair, static_cast<int32_t>(rank), merges[rank].merged};
  }
  whole_.reserve(token_bytes_.size());
  std::vector<int32_t> ids;
  for (size_t id = 0; id < token_bytes_.size(); ++id) {
    if (token_bytes_[id].empty()) continue;
    ids.clear();
    if (!ignore_merges)
      token_bytes_[id].size() <= kShortPiece ? merge_short(token_bytes_[id], ids) : merge_long(token_bytes_[id], ids);
    if (ignore_merges || (ids.size() == 1 && ids[0] == static_cast<int32_t>(id)))
      whole_.emplace(token_bytes_[id], static_cast<int32_t>(id));
  }
}

const BytePairEncoder::Slot* BytePairEncoder::find(int32_t left, int32_t right) const {
  const uint64_t pair = key(left, right);
  for (uint64_t at = mix(pair) & mask_; table_[at].pair != kEmpty; at = (at + 1) & mask_) {
    if (table_[at].pair == pair) return &table_[at];
  }
  return nullptr;
}

void BytePairEncoder::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (piece.empty()) return;
  if (const auto found = whole_.find(piece); found != whole_.end()) {
    ids.push_back(found->second);
  } else if (piece.size() <= kShortPiece) {
    merge_short(piece, ids);
  } else {
    merge_long(piece, ids);
  }
}

void BytePairEncoder::merge_short(std::string_view piece, std::vector<int32_t>& ids) const {
  struct Part {
    int32_t id, rank, merged;  // rank and result of merging with the part to the right
  };
  std::array<Part, kShortPiece> parts;
  size_t count = piece.size();
  const auto rate = [&](size_t i) {
    const Slot* slot = i + 1 < count ? find(parts[i].id, parts[i + 1].id) : nullptr;
    parts[i].rank = slot ? slot->rank : kNoRank;
    parts[i].merged = slot ? slot->merged : -1;
  };
  for (size_t i = 0; i < count; ++i) parts[i].id = byte_ids_[static_cast<uint8_t>(piece[i])];
  for (size_t i = 0; i < count; ++i) rate(i);
  while (true) {
    size_t best = 0;
    for (size_t i = 1; i < count; ++i) {
      if (parts[i].rank < parts[best].rank) best = i;
    }
    if (parts[best].rank == kNoRank) break;
    parts[best].id = parts[best].merged;
    for (size_t i = best + 1; i + 1 < count; ++i) parts[i] = parts[i + 1];
    --count;
    rate(best);
    if (best > 0) rate(best - 1);
  }
  for (size_t i = 0; i < count; ++i) ids.push_back(parts[i].id);
}

void BytePairEncoder::merge_long(std::string_view piece, std::vector<int32_t>& ids) const {
  struct Part {
    int32_t id;
    int64_t prev, next;  // neighbours still alive, or -1
  };
  struct Candidate {
    int32_t rank, merged;
    int64_t at;
    uint64_t pair;  // as it was when rated; a candidate whose parts have changed since is stale
    bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  const auto count = static_cast<int64_t>(piece.size());
  std::vector<Part> parts(piece.size());
  std::priority_queue<Candidate> queue;
  for (int64_t i = 0; i < count; ++i)
    parts[i] = {byte_ids_[static_cast<uint8_t>(piece[i])], i - 1, i + 1 < count ? i + 1 : -1};
  const auto rate = [&](int64_t at) {
    if (at < 0 || parts[at].next < 0) return;
    const Part& right = parts[parts[at].next];
    if (const Slot* slot = find(parts[at].id, right.id)) queue.push({slot->rank, slot->merged, at, slot->pair});
  };
  for (int64_t i = 0; i < count; ++i) rate(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Part& left = parts[best.at];
    if (left.id < 0 || left.next < 0 || key(left.id, parts[left.next].id) != best.pair) continue;
    Part& right = parts[left.next];
    left.id = best.merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) parts[left.next].prev = best.at;
    rate(best.at);
    rate(left.prev);
  }
  for (int64_t i = 0; i >= 0; i = parts[i].next) ids.push_back(parts[i].id);
}

}  // namespace temper::data
