// Text that was decoded wrongly.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace temper::data {

struct Mojibake {
  size_t at = 0;    // byte where the first character of it begins
  std::string was;  // what that was before
};

// UTF-8 that was read as Latin-1 or Windows-1252: "cafÃ©" was "café". One certain character or two doubtful ones
// decide, as some sequences are met in sound text: a capital letter before a curly quote, say. But for characters of
// three bytes and more, those count that touch a letter or digit or each other: what stands alone is spoken of ("the
// characters Ã© or Ã¨"). nullopt: the text is sound.
std::optional<Mojibake> find_mojibake(std::string_view text);

}  // namespace temper::data
