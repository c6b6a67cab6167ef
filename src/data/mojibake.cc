#include "data/mojibake.h"

#include <algorithm>
#include <array>

#include "data/byte_alphabet.h"
#include "data/unseen.h"

namespace temper::data {
namespace {

// What Windows-1252 shows for the bytes 0x80..0x9F; Latin-1's own where it shows nothing.
constexpr std::array<char32_t, 32> kWindows = {0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021,
                                               0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0x8D,   0x017D, 0x8F,
                                               0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
                                               0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178};

// The byte of 0x80..0xBF that is shown as this character; 0 if there is none.
uint8_t continuation_byte(char32_t c) {
  if (c >= 0x80 && c <= 0xBF) return static_cast<uint8_t>(c);
  const auto* found = std::find(kWindows.begin(), kWindows.end(), c);
  return found == kWindows.end() ? 0 : static_cast<uint8_t>(0x80 + (found - kWindows.begin()));
}

// Whether sound text may have this behind a capital letter: quotes, dashes and their like, no-break space, guillemets,
// degree, middle dot.
bool is_common_mark(char32_t c) { return c > 0xFF || c == 0xA0 || c == 0xAB || c == 0xBB || c == 0xB0 || c == 0xB7; }

// A character of several bytes, each of which was read as one.
struct Misread {
  std::string was;          // empty: there is none
  size_t num_bytes = 0;     // that it takes up now
  bool has_symbol = false;  // of the kind that sound text does not have behind a capital
};

// What stands at the head of the text, which begins with a byte outside ASCII.
Misread read_head(std::string_view text) {
  const auto [lead, lead_bytes] = first_character(text);
  if (lead < 0xC2 || lead > 0xF4) return {};  // begins no character of several bytes
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  Misread out = {std::string(1, static_cast<char>(lead)), lead_bytes, false};
  while (out.was.size() < length && out.num_bytes < text.size()) {
    const auto [c, c_bytes] = first_character(text.substr(out.num_bytes));
    const uint8_t byte = continuation_byte(c);
    if (byte == 0) return {};
    out.has_symbol |= !is_common_mark(c);
    out.was += static_cast<char>(byte);
    out.num_bytes += c_bytes;
  }
  return out.was.size() == length && utf8_length(out.was) > 0 ? out : Misread{};
}

bool is_ascii(char c) { return static_cast<uint8_t>(c) < 0x80; }
bool is_letter_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

}  // namespace

std::optional<Mojibake> find_mojibake(std::string_view text) {
  Mojibake first;
  int evidence = 0;  // two points are enough
  size_t last_end = std::string_view::npos;
  for (size_t i = 0; i < text.size() && evidence < 2;) {
    const Misread found = is_ascii(text[i]) ? Misread{} : read_head(text.substr(i));
    if (found.was.empty()) {
      i += is_ascii(text[i]) ? 1 : first_character(text.substr(i)).num_bytes;
      continue;
    }
    const size_t end = i + found.num_bytes;
    const bool is_long = found.was.size() > 2;
    const bool touches = (i > 0 && is_letter_or_digit(text[i - 1])) || i == last_end ||
                         (end < text.size() && (is_letter_or_digit(text[end]) ||
                                                (!is_ascii(text[end]) && !read_head(text.substr(end)).was.empty())));
    if (touches || (is_long && found.has_symbol)) {
      if (evidence == 0) first = {i, found.was};
      evidence += is_long || found.has_symbol ? 2 : 1;
    }
    i = last_end = end;
  }
  if (evidence < 2) return std::nullopt;
  return first;
}

}  // namespace temper::data
