// Spans as one text in which the places of special tokens are known.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/conversation_spans.h"

namespace temper::data {

class FlatSpans {
 public:
  struct Special {
    size_t begin = 0;
    std::string token;
    size_t end() const { return begin + token.size(); }
  };

  explicit FlatSpans(std::span<const ConversationSpan> spans);

  const std::string& text() const { return text_; }
  const std::vector<Special>& specials() const { return specials_; }

  // Whether before, the special token and after stand at this byte.
  bool has_mark(size_t at, std::string_view before, std::string_view token, std::string_view after) const;

  // First byte, from `from` on, at which has_mark holds; npos if there is none.
  size_t find_mark(size_t from, std::string_view before, std::string_view token, std::string_view after) const;

  // The first special token that begins in [begin, end), or nullptr.
  const Special* special_in(size_t begin, size_t end) const;

 private:
  std::string text_;
  std::vector<Special> specials_;  // in order
};

}  // namespace temper::data
