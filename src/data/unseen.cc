#include "data/unseen.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/byte_alphabet.h"

namespace temper::data {

Character first_character(std::string_view text) {
  const int64_t length = utf8_length(text);
  return length > 0 ? Character{utf8_head(text), static_cast<size_t>(length)} : Character{0xFFFD, 1};
}

bool is_control(char32_t c) {
  const bool is_blank = c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == 0x85;
  return (c < 0x20 || (c >= 0x7F && c < 0xA0)) && !is_blank;
}

Hidden hidden_kind(char32_t c, char32_t before, char32_t after, bool inside_flag) {
  if (c == 0x200B || c == 0x2060 || c == 0xFEFF) return Hidden::kSuspicious;  // zero-width space, word joiner, BOM
  if (c >= 0x200C && c <= 0x200F)                                             // joiners, marks of direction
    return before < 0x80 && after < 0x80 ? Hidden::kSuspicious : Hidden::kNo;
  if (c == 0x202D || c == 0x202E) return Hidden::kTrick;  // overrides of direction
  if ((c >= 0x202A && c <= 0x202C) || (c >= 0x2066 && c <= 0x2069)) return Hidden::kSuspicious;  // embeddings, isolates
  if (c >= 0xE0000 && c <= 0xE007F) return inside_flag ? Hidden::kNo : Hidden::kTrick;           // tags
  return Hidden::kNo;
}

void append_visible(std::string_view text, std::string& out) {
  while (!text.empty()) {
    const auto [c, num_bytes] = first_character(text);
    if (utf8_length(text) == 0) {
      out += fmt::format("\\x{:02X}", static_cast<uint8_t>(text[0]));
    } else if (is_control(c) || hidden_kind(c, 0, 0, false) != Hidden::kNo) {
      out += fmt::format("\\u{{{:04X}}}", static_cast<uint32_t>(c));
    } else {
      out += text.substr(0, num_bytes);
    }
    text.remove_prefix(num_bytes);
  }
}

std::string excerpt(std::string_view text, size_t at) {
  constexpr size_t kCharacters = 24;
  const auto is_inside = [&](size_t i) { return (static_cast<uint8_t>(text[i]) & 0xC0) == 0x80; };
  size_t begin = std::min(at, text.size()), end = begin;
  for (size_t i = 0; i < kCharacters && begin > 0; ++i) {
    do --begin;
    while (begin > 0 && is_inside(begin));
  }
  for (size_t i = 0; i < kCharacters && end < text.size(); ++i) {
    do ++end;
    while (end < text.size() && is_inside(end));
  }
  std::string out = begin > 0 ? "..." : "";
  append_visible(text.substr(begin, end - begin), out);
  std::replace_if(
      out.begin(), out.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t' || c == '\f'; }, ' ');
  return end < text.size() ? out + "..." : out;
}

}  // namespace temper::data
