// Strict JSON for files from outside: one value, no duplicate names, bounded nesting, valid UTF-8, no bytes after the
// value.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace temper {

// Parses text with Json = nlohmann::json (names sorted, fast look-up) or nlohmann::ordered_json (order of the file
// kept; use for small objects, its look-up is linear). Throws kCorrupt naming `origin` with line and column, the
// duplicate name, or the nesting deeper than max_depth (arrays and objects alike; the outermost counts 1).
template <class Json>
Json parse_json(std::string_view text, const std::string& origin, int max_depth = 32);

extern template nlohmann::json parse_json(std::string_view, const std::string&, int);
extern template nlohmann::ordered_json parse_json(std::string_view, const std::string&, int);

// The value as text of at most 60 characters, for messages.
template <class Json>
std::string describe_json(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace temper
