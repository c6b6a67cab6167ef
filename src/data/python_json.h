// JSON as Python's json.dumps(json.loads(text), ensure_ascii=False) writes it.
//
// The official conversation program passes every piece of JSON through Python, so that tools, schemas and arguments are
// trained in one spelling (architecture page 11.4): ", " and ": " between, keys in the order of their first appearance
// (of equal keys the last value counts), whole numbers with all their digits, other numbers as the shortest decimal
// that reads back equal (1.0, 1e-07, 1e+16), in strings only ", \ and characters below U+0020 escaped.
//
// Not taken for JSON, unlike in Python: NaN and Infinity, numbers beyond the range of a double, escapes of lone
// surrogates. Nesting deeper than 500 is not taken for JSON either; Python's limit is of the same order.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace temper::data {

enum class JsonKind : uint8_t { kObject, kArray, kString, kOther };

struct JsonMember {
  std::string key;  // empty in an array
  JsonKind kind = JsonKind::kOther;
  std::string text;  // of a string: the string itself; else: JSON as Python writes it
};

// A value and what is directly inside it.
struct JsonValue {
  JsonKind kind = JsonKind::kOther;
  std::string text;                 // as in JsonMember
  std::vector<JsonMember> members;  // of an object or array

  // What Python's `if value:` says: false for null, false, 0, "", [] and {}.
  bool is_truthy() const;

  // The member of an object with this key, or nullptr.
  const JsonMember* find(std::string_view key) const;
};

// The value that the whole text is, but for space around it; nothing if it is not JSON.
std::optional<JsonValue> read_python_json(std::string_view text);

// A string as JSON: json.dumps(text, ensure_ascii=False).
std::string python_json_string(std::string_view text);

}  // namespace temper::data
