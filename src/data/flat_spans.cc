#include "data/flat_spans.h"

#include <algorithm>

namespace temper::data {

FlatSpans::FlatSpans(std::span<const ConversationSpan> spans) {
  for (const ConversationSpan& span : spans) {
    if (span.is_special) specials_.push_back({text_.size(), span.text});
    text_ += span.text;
  }
}

bool FlatSpans::has_mark(size_t at, std::string_view before, std::string_view token, std::string_view after) const {
  const Special* special = special_in(at + before.size(), at + before.size() + 1);
  return special != nullptr && special->token == token && text_.compare(at, before.size(), before) == 0 &&
         text_.compare(special->end(), after.size(), after) == 0;
}

size_t FlatSpans::find_mark(size_t from, std::string_view before, std::string_view token,
                            std::string_view after) const {
  for (const Special* special = special_in(from + before.size(), text_.size());
       special != nullptr && special != specials_.data() + specials_.size(); ++special) {
    if (has_mark(special->begin - before.size(), before, token, after)) return special->begin - before.size();
  }
  return text_.npos;
}

const FlatSpans::Special* FlatSpans::special_in(size_t begin, size_t end) const {
  const auto first = std::lower_bound(specials_.begin(), specials_.end(), begin,
                                      [](const Special& special, size_t at) { return special.begin < at; });
  return first != specials_.end() && first->begin < end ? &*first : nullptr;
}

}  // namespace temper::data
