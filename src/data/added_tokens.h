// Finds the added tokens of a tokenizer (special or not) in text: a byte trie, longest match at the leftmost place.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace temper::data {

class AddedTokenFinder {
 public:
  // Adds a token; content must not be empty. A content added twice keeps the last id.
  void add(std::string_view content, int32_t id);

  // A stretch of text: an added token (id >= 0) or what lies between two (id = -1).
  struct Stretch {
    std::string_view text;
    int32_t id;
  };

  // Cuts text at its added tokens and appends the stretches, in order and without gaps; empty ones are left out.
  void cut(std::string_view text, std::vector<Stretch>& stretches) const;

 private:
  struct Node {
    int32_t id = -1;
    std::map<uint8_t, int32_t> next;
  };

  // Length and id of the longest token at the head of text; length 0 if there is none.
  std::pair<size_t, int32_t> longest(std::string_view text) const;

  std::vector<Node> nodes_ = {Node{}};
  std::array<bool, 256> starts_{};  // bytes that begin some token
};

}  // namespace temper::data
