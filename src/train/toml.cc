#include "train/toml.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace temper::train {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

bool asserts(std::string_view text) {
  try {
    (void)toml::parse(text);
  } catch (const TomlAssertion&) {
    return true;
  } catch (const toml::parse_error&) {
  }
  return false;
}

// The line, from 1, whose end completes the shortest beginning of the text that the library asserts on.
int64_t asserting_line(std::string_view text) {
  std::vector<size_t> ends;
  for (size_t end = 0; end < text.size(); ends.push_back(end))
    end = std::min(text.find('\n', end), text.size() - 1) + 1;
  const auto line =
      std::partition_point(ends.begin(), ends.end(), [&](size_t end) { return !asserts(text.substr(0, end)); });
  return line - ends.begin() + 1;
}

}  // namespace

toml::table parse_toml(const std::string& text, const std::string& origin) {
  if (text.size() > kMaxBytes)
    fail(ErrorCode::kCorrupt, "{}: {} bytes; a run file has at most {}", origin, text.size(), kMaxBytes);
  try {
    return toml::parse(text, origin);
  } catch (const toml::parse_error& error) {
    fail(ErrorCode::kCorrupt, "{}:{}:{}: not TOML: {}", origin, error.source().begin.line, error.source().begin.column,
         error.description());
  } catch (const TomlAssertion&) {
    fail(ErrorCode::kCorrupt, "{}:{}: not TOML: a table's name must begin with a letter, a digit, _, - or a quote",
         origin, asserting_line(text));
  }
}

}  // namespace temper::train
