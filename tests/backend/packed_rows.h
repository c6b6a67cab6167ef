// Geometry of packed documents, made independently of layers/token_layout, for the attention tests.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace temper::backend::test {

struct PackedRows {
  std::vector<double> key_begin_T, key_end_T, entry_begin_T, entry_count_T;
  std::vector<double> row_C, prev_row_C;
  int64_t T() const { return static_cast<int64_t>(key_begin_T.size()); }
  int64_t C() const { return static_cast<int64_t>(row_C.size()); }
};

// Documents of the given lengths in a row; `window` keys, self included; one entry for each whole window of `rate`
// tokens.
inline PackedRows pack_rows(const std::vector<int64_t>& lengths, int64_t window, int64_t rate) {
  PackedRows out;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    const int64_t first_entry = out.C();
    for (int64_t t = 0; t < length; ++t) {
      out.key_begin_T.push_back(static_cast<double>(begin + std::max<int64_t>(0, t - window + 1)));
      out.key_end_T.push_back(static_cast<double>(begin + t + 1));
      out.entry_begin_T.push_back(static_cast<double>(first_entry));
      out.entry_count_T.push_back(static_cast<double>((t + 1) / rate));
    }
    for (int64_t e = 0; e < length / rate; ++e) {
      out.row_C.push_back(static_cast<double>(begin + e * rate));
      out.prev_row_C.push_back(static_cast<double>(e ? begin + (e - 1) * rate : -1));
    }
    begin += length;
  }
  return out;
}

}  // namespace temper::backend::test
