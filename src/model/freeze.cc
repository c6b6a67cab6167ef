#include "model/freeze.h"

#include "base/error.h"

namespace temper::model {

bool matches_pattern(std::string_view text, std::string_view pattern) {
  const size_t star = pattern.find('*');
  if (star == pattern.npos) return text == pattern;
  const std::string_view head = pattern.substr(0, star);
  if (!text.starts_with(head)) return false;
  text.remove_prefix(head.size());
  pattern.remove_prefix(star + 1);
  for (;; text.remove_prefix(1)) {
    if (matches_pattern(text, pattern)) return true;
    if (text.empty()) return false;
  }
}

void freeze(std::span<layers::Parameter* const> parameters, std::span<const std::string> patterns) {
  for (const std::string& pattern : patterns) {
    bool found = false;
    for (layers::Parameter* p : parameters) {
      if (!matches_pattern(p->name, pattern)) continue;
      p->trainable = false;
      found = true;
    }
    if (!found) {
      fail(ErrorCode::kInvalidArgument,
           "the pattern \"{}\" names no parameter of the model; names look like {} (`temper inspect DIR` lists them), "
           "and * stands for any characters",
           pattern, parameters.front()->name);
    }
  }
}

}  // namespace temper::model
