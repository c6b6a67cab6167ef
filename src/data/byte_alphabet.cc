#include "data/byte_alphabet.h"

#include <array>

namespace temper::data {
namespace {

constexpr int kFirstShifted = 0x100;
constexpr int kAlphabetEnd = 0x100 + 68;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

// Two directions of one bijection; -1 where a code point is not in the alphabet.
struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int16_t, kAlphabetEnd> byte{};
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (auto& entry : alphabet.byte) entry = -1;
  int next = kFirstShifted;
  for (int byte = 0; byte < 256; ++byte) {
    const int code_point = stands_for_itself(byte) ? byte : next++;
    alphabet.character[byte] = static_cast<char32_t>(code_point);
    alphabet.byte[code_point] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

void append_utf8(char32_t c, std::string& out) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

int64_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t head = at(0);
  if (head < 0x80) return 1;
  const int64_t length = head >= 0xC2 && head <= 0xDF   ? 2
                         : (head & 0xF0) == 0xE0        ? 3
                         : head >= 0xF0 && head <= 0xF4 ? 4
                                                        : 0;
  if (length == 0 || static_cast<int64_t>(text.size()) < length) return 0;
  for (int64_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  const bool overlong = (head == 0xE0 && at(1) < 0xA0) || (head == 0xF0 && at(1) < 0x90);
  const bool surrogate = head == 0xED && at(1) >= 0xA0;
  const bool too_large = head == 0xF4 && at(1) >= 0x90;
  return overlong || surrogate || too_large ? 0 : length;
}

char32_t utf8_head(std::string_view text) {
  const auto low = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[i]) & 0x3F); };
  const auto head = static_cast<uint8_t>(text[0]);
  switch (utf8_length(text)) {
    case 1:
      return head;
    case 2:
      return static_cast<char32_t>(head & 0x1F) << 6 | low(1);
    case 3:
      return static_cast<char32_t>(head & 0x0F) << 12 | low(1) << 6 | low(2);
    default:
      return static_cast<char32_t>(head & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3);
  }
}

std::string spell_byte(uint8_t byte) {
  std::string out;
  append_utf8(kAlphabet.character[byte], out);
  return out;
}

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(kAlphabet.character[static_cast<uint8_t>(byte)], out);
  return out;
}

std::optional<std::string> unspell_bytes(std::string_view spelling) {
  std::string out;
  while (!spelling.empty()) {
    const int64_t length = utf8_length(spelling);
    if (length == 0) return std::nullopt;
    const char32_t c = utf8_head(spelling);
    if (c >= kAlphabetEnd || kAlphabet.byte[c] < 0) return std::nullopt;
    out += static_cast<char>(kAlphabet.byte[c]);
    spelling.remove_prefix(static_cast<size_t>(length));
  }
  return out;
}

}  // namespace temper::data
