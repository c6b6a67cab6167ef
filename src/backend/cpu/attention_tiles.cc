#include "backend/cpu/attention_tiles.h"

#include <algorithm>

namespace temper::backend {
namespace {

// Keys that a union of ranges may hold beyond the longest of them.
constexpr int64_t kSlackKeys = 16;

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

int64_t AttentionRanges::num_pairs(int64_t t) const {
  const int64_t entries = selected == nullptr ? num_entries(t) : std::min(num_entries(t), max_selected);
  return key_end[t] - key_begin[t] + entries;
}

AttentionTile next_tile(const AttentionRanges& ranges, int64_t t, int64_t end, int64_t max_queries) {
  Union keys, entries;
  const bool sparse = ranges.sparse(t);
  int64_t next = t;
  for (; next < end && next - t < (sparse ? 1 : max_queries); ++next) {
    if (next > t && ranges.sparse(next)) break;
    const Union more_keys = keys.with(ranges.key_begin[next], ranges.key_end[next]);
    Union more_entries = entries;
    if (const int64_t count = ranges.num_entries(next); count > 0 && !sparse)
      more_entries = entries.with(ranges.entry_begin[next], ranges.entry_begin[next] + count);
    if (!more_keys.compact() || !more_entries.compact()) break;
    keys = more_keys;
    entries = more_entries;
  }
  return {t, next, keys.begin, keys.end, entries.begin, entries.end, sparse};
}

}  // namespace temper::backend
