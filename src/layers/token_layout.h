// Which tokens and entries see each other: the geometry of a packed micro-batch, made on the host and copied to the
// device.
//
// The document, not the row, is the unit of positions, windows, compression and visibility (architecture page 5.8):
// positions restart at 0, windows are cut from the document's own start, a tail shorter than the rate gives no entry,
// nothing crosses a border.
//
// With context parallelism a micro-batch is cut into runs of rows, one for each rank (docs/parallel.md), wherever its
// documents end: make_layout() describes the whole, cut_layout() what a rank has of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
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

// Rows of a micro-batch by rank: rank r has those from begin_R[r] to begin_R[r + 1].
struct RowCut {
  int64_t rank = 0;
  std::vector<int64_t> begin_R = {0, 0};  // one more than there are ranks
  int64_t size() const { return static_cast<int64_t>(begin_R.size()) - 1; }
  int64_t begin() const { return begin_R[rank]; }
  int64_t end() const { return begin_R[rank + 1]; }
  int64_t num_rows() const { return end() - begin(); }
};
// Runs of num_rows / size rows, rounded up or down.
RowCut even_cut(int64_t num_rows, int64_t rank, int64_t size);

// Rows before a rank's own that it reads, by rank; they may be those of several ranks. Tensors that have them hold them
// in front of the own rows: [history, own].
using History = std::vector<int64_t>;

// Host-side geometry of the entries of one compression rate. A rank makes the entries whose last row it has; those of
// all ranks, by rank, are the entries of the micro-batch in their order.
struct EntryLayout {
  int64_t rate = 0;
  // Per entry that this rank makes: first token's row, previous window's row or -1 (both counted from the first row of
  // the history), rope position.
  std::vector<int32_t> row_C, prev_row_C, position_C;
  std::vector<int32_t> entry_begin_T, entry_count_T;  // per token: its document's first entry, number visible to it
  int64_t max_count = 0;                              // largest entry_count of the micro-batch
  std::vector<int64_t> count_R;                       // entries by the rank that makes them
  History history_R;          // room for what overlapping windows read: previous windows included
  History current_history_R;  // of which windows that do not overlap read the end
  int64_t num_entries() const { return std::accumulate(count_R.begin(), count_R.end(), int64_t{0}); }
};

struct HostLayout {
  // By row of this rank; keys are counted from the first row of the history.
  std::vector<int32_t> position_T, key_begin_T, key_end_T;
  std::vector<EntryLayout> entries;  // one per distinct rate, ascending
  double num_window_pairs = 0;       // query-key pairs of the sliding window
  RowCut cut;
  History history_R;  // of the sliding window
};

// window = sliding_window (self included). rates: the distinct compression rates of the model, each > 0.
HostLayout make_layout(const std::vector<int32_t>& cu_seqlens, int64_t window, const std::vector<int64_t>& rates);
// The part of cut.rank in a layout of one rank.
HostLayout cut_layout(HostLayout whole, const RowCut& cut);

// What a rank must have room for when num_ranks ranks have at most max_rows rows each.
struct RowCapacity {
  int64_t max_rows = 0, num_ranks = 1;
  int64_t own_entries(int64_t rate) const {
    return num_ranks == 1 ? max_rows / rate : (max_rows + rate - 1) / rate;  // a window may begin before its rank
  }
  int64_t entries(int64_t rate) const { return max_rows * num_ranks / rate; }
  // Of a sliding window, and of entries, which read the window before their own.
  int64_t window_history(int64_t window) const { return std::min(window - 1, max_rows * (num_ranks - 1)); }
  int64_t entry_history(int64_t rate) const { return std::min(2 * rate - 1, max_rows * (num_ranks - 1)); }
};

// Number of query-entry pairs when every token attends to at most `limit` of its visible entries.
double count_entry_pairs(const EntryLayout& entries, int64_t limit);

// Device copies. Declared once for a capacity of tokens; upload() fills a prefix with what a rank has of the batch, and
// narrows the Views to it.
struct DeviceEntries {
  int64_t rate = 0;
  int64_t max_count = 0, num_entries = 0;                            // of the micro-batch; position_C has the own ones
  View row_C, prev_row_C, position_C, entry_begin_T, entry_count_T;  // i32
  std::vector<int64_t> count_R;
  History history_R, current_history_R;
};

class DeviceLayout {
 public:
  void declare(Book& book, const RowCapacity& capacity, const std::vector<int64_t>& rates);
  void upload(const backend::DeviceTable& device, backend::Stream* stream, const MicroBatch& batch,
              const HostLayout& layout);
  int64_t num_tokens() const { return num_tokens_; }
  const HostLayout& host() const { return host_; }
  const RowCut& cut() const { return host_.cut; }
  const DeviceEntries& entries(int64_t rate) const;
  View token_T, position_T, key_begin_T, key_end_T;  // i32, narrowed to the current tokens

 private:
  int64_t num_tokens_ = 0;
  HostLayout host_;
  View full_token_, full_position_, full_key_begin_, full_key_end_;
  std::map<int64_t, DeviceEntries> full_entries_, entries_;
};

}  // namespace temper::layers
