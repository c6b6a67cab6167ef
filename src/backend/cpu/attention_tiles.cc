#include "backend/cpu/attention_tiles.h"

#include <algorithm>

namespace temper::backend {
namespace {

// Keys that a union of ranges may hold beyond the longest of them.
constexpr int64_t kSlackKeys = 64;
// A key of a tile costs as much as so many of its rows: it is packed.
constexpr int64_t kPackingRows = 8;

const int32_t* indices(const View& view) { return view.defined() ? view.data<int32_t>() : nullptr; }

// The union of some ranges, and the length of the longest. Empty ranges do not count.
struct Union {
  int64_t begin = 0, end = 0, longest = 0;
  Union with(int64_t other_begin, int64_t other_end) const {
    if (other_begin >= other_end) return *this;
    if (longest == 0) return {other_begin, other_end, other_end - other_begin};
    return {std::min(begin, other_begin), std::max(end, other_end), std::max(longest, other_end - other_begin)};
  }
  bool compact() const { return end - begin <= longest + kSlackKeys; }
};

}  // namespace

AttentionRanges::AttentionRanges(const KeyRanges& ranges, int64_t num_queries)
    : key_begin(indices(ranges.key_begin_T)),
      key_end(indices(ranges.key_end_T)),
      entry_begin(indices(ranges.entry_begin_T)),
      entry_count(indices(ranges.entry_count_T)),
      selected(indices(ranges.selected_TA)),
      num_queries(num_queries),
      max_selected(ranges.selected_TA.defined() ? ranges.selected_TA.dim(1) : 0) {}

bool AttentionRanges::sparse(int64_t t) const {
  if (selected == nullptr) return false;
  const int64_t count = num_entries(t);
  // Selections ascend, so slot count - 1 holds entry count - 1 only if all are selected.
  return count > max_selected || (count > 0 && selected[t * max_selected + count - 1] != count - 1);
}

TileShape::TileShape(int64_t num_queries, int64_t num_heads, int64_t max_rows)
    : num_heads(num_heads),
      max_queries(std::clamp<int64_t>(max_rows / num_heads, 1, kMaxTileQueries)),
      chunk(std::clamp<int64_t>(num_queries / 16, 1, kMaxTileQueries)) {
  max_queries = std::min(max_queries, chunk);
}

bool TileShape::gathers(const AttentionRanges& ranges, int64_t t) const {
  // (What this holds for has more entries than it may select; the selection itself is not looked into: that is slow.)
  return ranges.selected != nullptr && ranges.num_entries(t) * (max_queries * num_heads + kPackingRows) >
                                           ranges.max_selected * max_queries * (num_heads + kPackingRows);
}

int64_t TileShape::cost(const AttentionRanges& ranges, int64_t t) const {
  const int64_t keys = ranges.key_end[t] - ranges.key_begin[t];
  if (!gathers(ranges, t)) return keys + ranges.num_entries(t);
  return keys + ranges.max_selected * (num_heads + kPackingRows) / num_heads;
}

AttentionTile next_tile(const AttentionRanges& ranges, const TileShape& shape, int64_t t, int64_t end) {
  Union keys, entries;
  const bool gathers = shape.gathers(ranges, t);
  const int64_t limit = std::min({end, t + shape.max_queries, (t / shape.chunk + 1) * shape.chunk});
  int64_t next = t;
  for (; next < limit; ++next) {
    if (shape.gathers(ranges, next) != gathers) break;
    const Union more_keys = keys.with(ranges.key_begin[next], ranges.key_end[next]);
    Union more_entries = entries;
    if (const int64_t count = ranges.num_entries(next); count > 0 && !gathers)
      more_entries = entries.with(ranges.entry_begin[next], ranges.entry_begin[next] + count);
    if (!more_keys.compact() || !more_entries.compact()) break;
    keys = more_keys;
    entries = more_entries;
  }
  return {t, next, keys.begin, keys.end, entries.begin, entries.end, gathers};
}

std::vector<int64_t> partition_tiles(const AttentionRanges& ranges, const TileShape& shape, int num_parts) {
  std::vector<int64_t> costs;
  for (int64_t t = 0; t < ranges.num_queries; ++t) {
    if (t % shape.chunk == 0) costs.push_back(0);
    costs.back() += shape.cost(ranges, t);
  }
  const auto num_chunks = static_cast<int64_t>(costs.size());
  auto bounds = partition_queries(num_chunks, num_parts, [&](int64_t i) { return costs[i]; });
  for (int64_t& bound : bounds) bound = std::min(bound * shape.chunk, ranges.num_queries);
  return bounds;
}

}  // namespace temper::backend
