// What forward keeps for backward and what backward rebuilds.
#pragma once

#include <cstdint>
#include <vector>

namespace temper::model {

// kNone: nothing is rebuilt; every saved tensor of every block is kept.
// kBlock: each block keeps its input streams and its discrete choices; its other saved tensors are rebuilt, one block
// at a
//         time.
// kFull: only every segment's first block (about sqrt(L) of them) keeps its input streams; backward first rebuilds the
// inputs
//        inside a segment, then each block.
enum class Recompute : uint8_t { kNone, kBlock, kFull };

// Where the streams before and after each of L blocks live, and whether blocks share their saved tensors.
struct KeepPlan {
  int64_t num_stream_buffers = 0;
  std::vector<int64_t> stream_buffer;  // L+1: buffer that holds the streams before block l; [L] = after the last
  int64_t segment = 1;                 // blocks per segment; inputs of a segment's first block are always kept
  bool share_saved = false;            // one memory for the saved tensors of all blocks
};

// train false: nothing is kept, two stream buffers alternate.
KeepPlan make_keep_plan(Recompute recompute, int64_t num_layers, bool train);

}  // namespace temper::model
