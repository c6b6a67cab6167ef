#include "data/added_tokens.h"

namespace temper::data {

void AddedTokenFinder::add(std::string_view content, int32_t id) {
  starts_[static_cast<uint8_t>(content[0])] = true;
  int32_t node = 0;
  for (const char c : content) {
    const auto [place, is_new] = nodes_[node].next.try_emplace(static_cast<uint8_t>(c), nodes_.size());
    node = place->second;
    if (is_new) nodes_.emplace_back();
  }
  nodes_[node].id = id;
}

std::pair<size_t, int32_t> AddedTokenFinder::longest(std::string_view text) const {
  std::pair<size_t, int32_t> best = {0, -1};
  int32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto found = nodes_[node].next.find(static_cast<uint8_t>(text[i]));
    if (found == nodes_[node].next.end()) break;
    node = found->second;
    if (nodes_[node].id >= 0) best = {i + 1, nodes_[node].id};
  }
  return best;
}

void AddedTokenFinder::cut(std::string_view text, std::vector<Stretch>& stretches) const {
  size_t done = 0;
  for (size_t i = 0; i < text.size();) {
    if (!starts_[static_cast<uint8_t>(text[i])]) {
      ++i;
      continue;
    }
    const auto [length, id] = longest(text.substr(i));
    if (length == 0) {
      ++i;
      continue;
    }
    if (i > done) stretches.push_back({text.substr(done, i - done), -1});
    stretches.push_back({text.substr(i, length), id});
    done = i += length;
  }
  if (done < text.size()) stretches.push_back({text.substr(done), -1});
}

}  // namespace temper::data
