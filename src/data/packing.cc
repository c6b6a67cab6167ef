#include "data/packing.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "base/error.h"

namespace temper::data {

std::vector<std::vector<int64_t>> pack_best_fit(std::span<const int64_t> lengths, int64_t capacity) {
  const auto length_of = [&](int64_t index) { return lengths[static_cast<size_t>(index)]; };
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length_of(a) > length_of(b); });
  std::vector<std::vector<int64_t>> rows;
  std::set<std::pair<int64_t, size_t>> open;  // (free space, row); full rows are not kept
  for (const int64_t index : order) {
    const int64_t length = length_of(index);
    if (length < 1 || length > capacity)
      fail(ErrorCode::kInvalidArgument, "example {} has {} tokens and cannot be packed into rows of {} tokens", index,
           length, capacity);
    int64_t free = capacity;
    size_t row = rows.size();
    if (const auto best = open.lower_bound({length, 0}); best != open.end()) {
      std::tie(free, row) = *best;
      open.erase(best);
    } else {
      rows.emplace_back();
    }
    rows[row].push_back(index);
    if (free > length) open.emplace(free - length, row);
  }
  return rows;
}

}  // namespace temper::data
