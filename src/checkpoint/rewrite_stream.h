// The data of one piece of a conversion: read, converted, written and hashed by small chunks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/random_file.h"
#include "checkpoint/rewrite_plan.h"

namespace temper::checkpoint {

// XXH3, 64 bits, of the bytes of a piece on either side; 0 where there is no scale.
struct PieceHashes {
  uint64_t source = 0, source_scale = 0, target = 0, target_scale = 0;
  bool operator==(const PieceHashes&) const = default;
};
std::string hash_text(uint64_t hash);  // 16 hex digits

// A run of bytes in a file.
struct ByteRange {
  int64_t begin = 0, num_bytes = 0;
};
// Of a piece's weight and scale in the source tensor and in the target file; without a scale num_bytes is 0.
struct PieceRanges {
  ByteRange source, source_scale, target, target_scale;  // source: from the begin of its file
};
PieceRanges ranges_of(const RewritePiece& piece, const RewritePlan& plan);

// A stripe of rows on its way.
struct StripeBuffers {
  std::vector<std::byte> weight, scale, target, target_scale;
  std::vector<float> values;
};

// Moves pieces through buffers of its own of a few megabytes (a stripe of 128 rows where that is more); one for each
// thread.
class PieceStream {
 public:
  // on_bytes is told the number of source bytes after each chunk.
  PieceStream(const RewritePlan& plan, std::function<void(int64_t)> on_bytes)
      : plan_(plan), on_bytes_(std::move(on_bytes)) {}

  // Reads the piece from its source files and writes it to its place in the target file. Throws kCorrupt, naming the
  // tensor, where an element is not finite in a conversion that changes numbers.
  PieceHashes move(const RewritePiece& piece, RandomFile& target);

  // The hashes of the bytes that the target file holds in the places of the piece.
  PieceHashes hash_target(const RewritePiece& piece, const RandomFile& target);

  // The hash of bytes of a file.
  uint64_t hash(const RandomFile& file, ByteRange range);

 private:
  uint64_t copy(const RandomFile& source, ByteRange from, RandomFile& target, int64_t to);

  const RewritePlan& plan_;
  std::function<void(int64_t)> on_bytes_;
  StripeBuffers buffers_;
};

}  // namespace temper::checkpoint
