#include "data/duplicates.h"

#include <xxhash.h>

#include <memory>

namespace temper::data {
namespace {

// Feeds text to XXH3 in its normal form.
class NormalHash {
 public:
  NormalHash() : state_(XXH3_createState(), XXH3_freeState) { XXH3_128bits_reset(state_.get()); }

  // Texts are set apart, so that "ab", "c" is not "a", "bc".
  void add(std::string_view text) {
    buffer_.clear();
    bool blank_before = true;
    for (const char c : text) {
      const bool is_blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
      if (is_blank && blank_before) continue;
      buffer_ += is_blank ? ' ' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      blank_before = is_blank;
    }
    if (!buffer_.empty() && buffer_.back() == ' ') buffer_.pop_back();
    buffer_ += '\0';
    XXH3_128bits_update(state_.get(), buffer_.data(), buffer_.size());
  }

  RecordHashes::Hash value() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return {hash.high64, hash.low64};
  }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
  std::string buffer_;
};

void add_message(const Message& message, NormalHash& hash) {
  for (const std::string* part : {&message.role, &message.content, &message.reasoning_content, &message.tools,
                                  &message.response_format, &message.task})
    hash.add(*part);
  for (const ToolCall& call : message.tool_calls) hash.add(call.name), hash.add(call.arguments);
}

}  // namespace

RecordHashes hash_record(const Record& record, std::span<const Message> messages) {
  NormalHash hash;
  RecordHashes out;
  if (record.kind == RecordKind::kText) hash.add(record.text);
  for (size_t i = 0; i < messages.size(); ++i) {
    if (i + 1 == messages.size() && i > 0 && messages[i].role == "assistant") {
      out.prompt = hash.value();
      out.has_prompt = true;
    }
    add_message(messages[i], hash);
  }
  out.whole = hash.value();
  return out;
}

DuplicateFinder::Seen DuplicateFinder::add(const RecordHashes& hashes, const std::string& file, int64_t line) {
  if (files_.empty() || files_.back() != file) files_.push_back(file);
  const Place here = {static_cast<uint32_t>(files_.size() - 1), line};
  Seen seen;
  const auto [whole, is_new] = records_.try_emplace(hashes.whole, here);
  if (!is_new) seen.duplicate_of = describe(whole->second);
  if (!hashes.has_prompt) return seen;
  const auto [prompt, is_new_prompt] = prompts_.try_emplace(hashes.prompt, here);
  if (is_new && !is_new_prompt) seen.same_prompt_as = describe(prompt->second);
  return seen;
}

std::string DuplicateFinder::describe(const Place& place) const {
  return files_[place.file] + ":" + std::to_string(place.line);
}

}  // namespace temper::data
