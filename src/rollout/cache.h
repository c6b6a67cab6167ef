// What decoding keeps of a sequence (architecture page 9): the last sliding_window latents, the compressed entries, and
// the projections of windows that are not finished or that the next entry still overlaps.
//
// Slots b = 0..B-1 hold one sequence each. Rows of slot b in each tensor:
//   latents      b*W + t mod W                                 W = sliding_window; order inside the ring is irrelevant
//   entries      b*(length/rate) + w
//   projections  b*2*rate + (w mod 2)*rate + t mod rate          two windows, since CSA entries overlap the window
//   before
// A new sequence in a slot needs no clearing: every read is bounded by its position.
#pragma once

#include <cstdint>
#include <vector>

#include "model/block.h"

namespace temper::rollout {

struct CompressorCache {
  View z_SZ, g_SZ;  // acc
  View k_CH;        // act
};

struct LayerCache {
  View c_SH;  // act
  CompressorCache entries, indexer;
};

struct CacheShape {
  int64_t max_sequences;  // B
  int64_t max_length;     // tokens per sequence
  int64_t window;         // W

  int64_t max_entries(int64_t rate) const { return max_length / rate; }
};

// Declares the cache of one layer.
void declare_cache(Book& book, LayerCache& cache, const layers::Attention& attention, const CacheShape& shape,
                   DType act, DType acc);

// One token of one sequence, to be decoded in this step.
struct SlotToken {
  int64_t slot;
  int32_t token;
  int32_t position;
};

// Row numbers of one step, on the host.
struct StepRows {
  std::vector<int32_t> token_T, position_T, key_begin_T, key_end_T, ring_row_T;
};
// The same for one rate.
struct StepEntries {
  std::vector<int32_t> entry_begin_T, entry_count_T, projection_row_T;
  // Windows that this step's tokens finish: rows of their projections, rotary position and row in the entry cache.
  std::vector<int32_t> row_C, prev_row_C, position_C, entry_row_C;
};

StepRows make_step_rows(const std::vector<SlotToken>& tokens, const CacheShape& shape);
StepEntries make_step_entries(const std::vector<SlotToken>& tokens, const CacheShape& shape, int64_t rate);

}  // namespace temper::rollout
