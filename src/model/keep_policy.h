// What forward keeps for backward and what backward rebuilds.
#pragma once

#include <cstdint>
#include <string>

namespace temper::model {

// kNone: nothing is rebuilt, every saved tensor of every block is kept.
// kBlock: each block keeps its input streams and its discrete choices; its other saved tensors are rebuilt, one block at a time.
// kFull: only every sqrt(L)-th block keeps its input streams; backward first rebuilds the inputs of a segment, then each block.
enum class Recompute : uint8_t { kNone, kBlock, kFull };

}  // namespace temper::model
