// Best-fit decreasing bin packing of documents into rows.
//
// Lengths are taken from the longest down, equal ones by index; each goes into the row with the least free space that
// still takes it (the earliest opened of equal ones), or opens a new row. Source: post-training.md 2.4, vectors in 7.8.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace temper::data {

// Rows in the order of opening, each a list of indices into `lengths` in the order of placing. O(n log n).
// Refuses (kInvalidArgument) a length below 1 or above `capacity`.
std::vector<std::vector<int64_t>> pack_best_fit(std::span<const int64_t> lengths, int64_t capacity);

}  // namespace temper::data
