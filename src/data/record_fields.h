// Fields of a parsed JSON object, with complaints that begin with the record's place. For the readers of records.
#pragma once

#include <fmt/format.h>
#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace temper::data {

class RecordFields {
 public:
  explicit RecordFields(std::string_view origin) : origin_(origin) {}

  template <class... Args>
  [[noreturn]] void invalid(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kInvalidArgument, "{}:1: {}", origin_, fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  [[noreturn]] void unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kUnsupported, "{}:1: {}", origin_, fmt::format(format, std::forward<Args>(args)...));
  }

  // A field of the object. Absent and null are the same.
  static std::optional<simdjson::dom::element> member(simdjson::dom::object parent, std::string_view key) {
    simdjson::dom::element out;
    if (parent[key].get(out) || out.is_null()) return std::nullopt;
    return out;
  }

  // null, "", [], {}.
  static bool is_empty(simdjson::dom::element value) {
    std::string_view text;
    if (!value.get(text)) return text.empty();
    simdjson::dom::array list;
    if (!value.get(list)) return list.size() == 0;
    simdjson::dom::object object;
    return value.is_null() || (!value.get(object) && object.size() == 0);
  }

  std::string_view as_string(simdjson::dom::element value, std::string_view what) const {
    std::string_view out;
    if (value.get(out)) invalid("\"{}\" is not a string", what);
    return out;
  }
  simdjson::dom::array as_list(simdjson::dom::element value, std::string_view what) const {
    simdjson::dom::array out;
    if (value.get(out)) invalid("\"{}\" is not a list", what);
    return out;
  }
  simdjson::dom::object as_object(simdjson::dom::element value, std::string_view what) const {
    simdjson::dom::object out;
    if (value.get(out)) invalid("{} is not an object", what);
    return out;
  }

  // A string field; empty if absent.
  std::string string_or_empty(simdjson::dom::object parent, std::string_view key) const {
    const auto value = member(parent, key);
    return value ? std::string(as_string(*value, key)) : std::string();
  }
  // A string or number as text; empty if absent.
  static std::string label(simdjson::dom::object parent, std::string_view key) {
    const auto value = member(parent, key);
    if (!value) return {};
    std::string_view text;
    return value->get(text) ? simdjson::minify(*value) : std::string(text);
  }

  // The value itself, or, of a string, the value that its text is when read as JSON. nullopt: the text is not JSON.
  static std::optional<simdjson::dom::element> unwrap(simdjson::dom::element value, simdjson::dom::parser& parser) {
    std::string_view text;
    if (value.get(text)) return value;
    simdjson::dom::element inner;
    if (parser.parse(text.data(), text.size()).get(inner)) return std::nullopt;
    return inner;
  }

 private:
  std::string_view origin_;
};

}  // namespace temper::data
