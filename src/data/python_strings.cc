#include "data/python_strings.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "data/byte_alphabet.h"

namespace temper::data {
namespace {

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// The number that the `count` digits at the head of text are in this base, or nothing.
std::optional<char32_t> read_digits(std::string_view text, size_t count, uint32_t base) {
  if (text.size() < count) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text.substr(0, count)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 16;
    if (digit >= static_cast<int>(base)) return std::nullopt;
    value = value * base + static_cast<uint64_t>(digit);
  }
  if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return std::nullopt;
  return static_cast<char32_t>(value);
}

// The text between a literal's quotes with its escapes resolved; nothing if one of them is malformed or not known here.
std::optional<std::string> unescape(std::string_view body) {
  constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeanings = "\\'\"\a\b\f\n\r\t\v";
  std::string out;
  for (size_t i = 0; i < body.size(); ++i) {
    if (body[i] != '\\') {
      out += body[i];
      continue;
    }
    const char c = body[++i];  // a literal never ends in a lone backslash
    size_t num_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (c >= '0' && c <= '7') {
      num_digits = std::min(body.find_first_not_of("01234567", i), body.size()) - i;
      num_digits = std::min<size_t>(num_digits, 3);
      append_utf8(*read_digits(body.substr(i), num_digits, 8), out);
      i += num_digits - 1;
    } else if (num_digits > 0) {
      const auto code_point = read_digits(body.substr(i + 1), num_digits, 16);
      if (!code_point) return std::nullopt;
      append_utf8(*code_point, out);
      i += num_digits;
    } else if (const size_t known = kLetters.find(c); known != kLetters.npos) {
      out += kMeanings[known];
    } else if (c == 'N') {
      return std::nullopt;
    } else if (c != '\n') {  // a backslash at the end of a line joins it with the next
      out += '\\';
      out += c;
    }
  }
  return out;
}

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  std::map<std::string, std::string> run() {
    std::map<std::string, std::string> out;
    while (at_ < text_.size()) {
      const std::string name = read_name();
      if (!name.empty() && skip_to_value()) {
        if (auto value = read_value()) out[name] = std::move(*value);
      }
      skip_line();
    }
    return out;
  }

 private:
  char here() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool at_quote() const { return here() == '"' || here() == '\''; }

  std::string read_name() {
    const size_t begin = at_;
    while (is_name_character(here())) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  void skip_comment() {
    if (here() == '#') at_ = std::min(text_.find('\n', at_), text_.size());
  }

  // Space and comments; over line ends only inside brackets.
  void skip_space(bool in_brackets) {
    for (;;) {
      if (here() == '#' && in_brackets) skip_comment();
      const bool joins_lines = text_.substr(at_).starts_with("\\\n");
      if (here() == ' ' || here() == '\t' || here() == '\r' || (in_brackets && here() == '\n')) {
        ++at_;
      } else if (joins_lines) {
        at_ += 2;
      } else {
        return;
      }
    }
  }

  // From after a name to after the = of its assignment; false if the statement is not one.
  bool skip_to_value() {
    skip_space(false);
    if (here() == ':') at_ = std::min(text_.find_first_of("=\n", at_), text_.size());
    if (here() != '=' || text_.substr(at_).starts_with("==")) return false;
    ++at_;
    return true;
  }

  // Steps over the literal at a quote and returns what is between its quotes; nothing if it does not end.
  std::optional<std::string_view> skip_literal() {
    const char quote = here();
    const std::string triple(3, quote);
    const bool is_long = text_.substr(at_).starts_with(triple);
    const std::string_view end = is_long ? std::string_view(triple) : std::string_view(triple).substr(0, 1);
    at_ += end.size();
    const size_t begin = at_;
    while (at_ < text_.size() && !text_.substr(at_).starts_with(end)) {
      if (here() == '\n' && !is_long) return std::nullopt;
      at_ += here() == '\\' && at_ + 1 < text_.size() ? 2 : 1;
    }
    if (at_ >= text_.size()) return std::nullopt;
    const std::string_view body = text_.substr(begin, at_ - begin);
    at_ += end.size();
    return body;
  }

  // The string that an expression of literals is; nothing for any other expression.
  std::optional<std::string> read_value() {
    std::string out;
    int64_t depth = 0;
    bool has_literal = false;
    for (;;) {
      skip_space(depth > 0);
      if (here() == '(') {
        ++depth, ++at_;
      } else if (here() == ')' && depth > 0) {
        --depth, ++at_;
      } else if (here() == '+' && has_literal) {
        ++at_;
      } else if (has_literal && depth == 0 && (at_ == text_.size() || here() == '\n' || here() == '#')) {
        return out;
      } else {
        const std::string prefix = read_name();
        const bool is_raw = prefix == "r" || prefix == "R";
        if (!at_quote() || (!is_raw && !prefix.empty() && prefix != "u" && prefix != "U")) return std::nullopt;
        const auto body = skip_literal();
        if (!body) return std::nullopt;
        const auto part = is_raw ? std::string(*body) : unescape(*body);
        if (!part) return std::nullopt;
        out += *part;
        has_literal = true;
      }
    }
  }

  // To the start of the next line that does not lie inside a literal.
  void skip_line() {
    while (at_ < text_.size() && here() != '\n') {
      if (here() == '#') {
        skip_comment();
      } else if (at_quote()) {
        skip_literal();
      } else {
        ++at_;
      }
    }
    if (at_ < text_.size()) ++at_;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::map<std::string, std::string> read_python_strings(std::string_view program) { return Scanner(program).run(); }

}  // namespace temper::data
