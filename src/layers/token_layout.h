// Which tokens and entries see each other: the geometry of a packed micro-batch, made on the host and copied to the
// device.
//
// The document, not the row, is the unit of positions, windows, compression and visibility (architecture page 5.8):
// positions restart at 0, windows are cut from the document's own start, a tail shorter than the rate gives no entry,
// nothing crosses a border.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "backend/ops.h"

namespace temper::layers {

// Tokens of one micro-batch, on the host. T = tokens.size(); documents are [cu_seqlens[s], cu_seqlens[s+1]).
struct MicroBatch {
  std::vector<int32_t> tokens;
  std::vector<int32_t> cu_seqlens;  // starts with 0, ends with T
  std::vector<int32_t> targets;     // token to predict at each position; -1 = no loss here
  std::vector<float> weights;       // loss weight of each position; 0 where targets is -1
};

// Host-side geometry of the entries of one compression rate.
struct EntryLayout {
  int64_t rate = 0;
  std::vector<int32_t> row_C, prev_row_C,
      position_C;  // per entry: first token's row, previous window's row or -1, rope position
  std::vector<int32_t> entry_begin_T, entry_count_T;  // per token: its document's first entry, number visible to it
  int64_t max_count = 0;                              // largest entry_count
};

struct HostLayout {
  std::vector<int32_t> position_T, key_begin_T, key_end_T;
  std::vector<EntryLayout> entries;  // one per distinct rate, ascending
  double num_window_pairs = 0;       // query-key pairs of the sliding window
};

// window = sliding_window (self included). rates: the distinct compression rates of the model, each > 0.
HostLayout make_layout(const std::vector<int32_t>& cu_seqlens, int64_t window, const std::vector<int64_t>& rates);

// Number of query-entry pairs when every token attends to at most `limit` of its visible entries.
double count_entry_pairs(const EntryLayout& entries, int64_t limit);

// Device copies. Declared once for a capacity of tokens; upload() fills a prefix and narrows the Views to it.
struct DeviceEntries {
  int64_t rate = 0;
  int64_t max_count = 0, num_entries = 0;
  View row_C, prev_row_C, position_C, entry_begin_T, entry_count_T;  // i32
};

class DeviceLayout {
 public:
  void declare(Book& book, int64_t max_tokens, const std::vector<int64_t>& rates);
  void upload(const backend::DeviceTable& device, backend::Stream* stream, const MicroBatch& batch,
              const HostLayout& layout);
  int64_t num_tokens() const { return num_tokens_; }
  const HostLayout& host() const { return host_; }
  const DeviceEntries& entries(int64_t rate) const;
  View token_T, position_T, key_begin_T, key_end_T;  // i32, narrowed to the current tokens

 private:
  int64_t num_tokens_ = 0;
  HostLayout host_;
  View full_token_, full_position_, full_key_begin_, full_key_end_;
  std::map<int64_t, DeviceEntries> full_entries_, entries_;
};

}  // namespace temper::layers
