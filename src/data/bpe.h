// Byte pair encoding of one piece: start from single bytes, merge the adjacent pair of lowest rank (leftmost first)
// until no pair has a rank.
//
// Source: Sennrich et al. 2016 on the bytes of UTF-8 (Radford et al. 2019). Tokens are ids throughout; a merge is
// (left id, right id) -> merged id, its rank the place in the list.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace temper::data {

struct Merge {
  int32_t left, right, merged;
};

// Immutable after construction: encode() may be called from many threads.
class BytePairEncoder {
 public:
  // byte_ids: the token of every single byte. merges: by rank; of equal pairs the later counts. token_bytes: what each
  // id stands for (empty: not a token that text can become). With ignore_merges a piece that is a token is that token
  // whatever the merges say.
  BytePairEncoder(const std::array<int32_t, 256>& byte_ids, const std::vector<Merge>& merges,
                  std::vector<std::string> token_bytes, bool ignore_merges);

  // Appends the tokens of one piece.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

 private:
  struct Slot {
    uint64_t pair = kEmpty;
    int32_t rank = 0, merged = 0;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  const Slot* find(int32_t left, int32_t right) const;
  void merge_short(std::string_view piece, std::vector<int32_t>& ids) const;
  void merge_long(std::string_view piece, std::vector<int32_t>& ids) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<Slot> table_;  // open addressing, size a power of two, at most half full
  uint64_t mask_ = 0;
  std::vector<std::string> token_bytes_;
  // Pieces that are one token: most pieces of ordinary text, found here without merging.
  std::unordered_map<std::string_view, int32_t> whole_;
};

}  // namespace temper::data
