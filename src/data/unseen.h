// Characters that nobody sees, and how to show them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace temper::data {

struct Character {
  char32_t code;
  size_t num_bytes;
};
// The character at the head of a text that is not empty; a byte that is not UTF-8 is U+FFFD of one byte.
Character first_character(std::string_view text);

// C0 but for tab, line breaks and form feed; DEL; C1 but for next line (U+0085).
bool is_control(char32_t c);

enum class Hidden : uint8_t { kNo, kSuspicious, kTrick };

// Characters that change what a reader sees without being seen themselves: zero-width ones, marks and overrides of
// direction, tags. Joiners are part of many scripts and of emoji, and marks of direction of right-to-left text: they
// are suspicious only between two ASCII characters. inside_flag: only tags have come since a black flag, as in emoji.
Hidden hidden_kind(char32_t c, char32_t before, char32_t after, bool inside_flag);

// Appends the text with every character that is not seen spelled as \u{200B}, and every byte that is not UTF-8 as \xFF.
// Line breaks and tabs stay.
void append_visible(std::string_view text, std::string& out);

// At most about 24 characters on each side of the byte `at`, on one line, visible, for messages to the user.
std::string excerpt(std::string_view text, size_t at = 0);

}  // namespace temper::data
