#include "data/conversation_spans.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

// The special token at the head of text, or nothing.
std::string_view special_head(std::string_view text) {
  for (const std::string_view token : kConversationTokens) {
    if (text.starts_with(token)) return token;
  }
  return {};
}

}  // namespace

void SpanWriter::special(std::string_view token, bool trained) {
  spans_.push_back({std::string(token), true, trained});
}

void SpanWriter::text(std::string_view text, bool trained) {
  if (text.empty()) return;
  if (!spans_.empty() && !spans_.back().is_special && spans_.back().trained == trained) {
    spans_.back().text += text;
  } else {
    spans_.push_back({std::string(text), false, trained});
  }
}

void SpanWriter::template_text(std::string_view text, bool trained) {
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const std::string_view token = special_head(text.substr(i));
    if (token.empty()) {
      ++i;
      continue;
    }
    this->text(text.substr(begin, i - begin), trained);
    special(token, trained);
    i += token.size();
    begin = i;
  }
  this->text(text.substr(begin), trained);
}

std::vector<ConversationSpan> split_special(std::string_view text) {
  SpanWriter writer;
  writer.template_text(text);
  return writer.take();
}

std::string join_spans(std::span<const ConversationSpan> spans) {
  std::string out;
  for (const ConversationSpan& span : spans) out += span.text;
  return out;
}

EncodedConversation encode_spans(std::span<const ConversationSpan> spans, const Tokenizer& tokenizer) {
  EncodedConversation out;
  for (const ConversationSpan& span : spans) {
    if (span.is_special) {
      const auto id = tokenizer.token_id(span.text);
      if (!id)
        fail(ErrorCode::kInvalidArgument,
             "the tokenizer has no token \"{}\", which the conversation format needs; use a DeepSeek-V4 tokenizer or "
             "one made by `temper data train-tokenizer`",
             span.text);
      out.tokens.push_back(*id);
    } else {
      const std::vector<int32_t> ids = tokenizer.encode(span.text, /*parse_special=*/false);
      out.tokens.insert(out.tokens.end(), ids.begin(), ids.end());
    }
    out.trained.resize(out.tokens.size(), span.trained);
  }
  return out;
}

std::vector<ConversationSpan> decode_spans(std::span<const int32_t> tokens, const Tokenizer& tokenizer) {
  std::unordered_map<int32_t, std::string_view> special;
  for (const std::string_view token : kConversationTokens) {
    if (const auto id = tokenizer.token_id(token)) special[*id] = token;
  }
  SpanWriter writer;
  for (size_t i = 0; i < tokens.size();) {
    if (const auto token = special.find(tokens[i]); token != special.end()) {
      writer.special(token->second);
      ++i;
      continue;
    }
    const size_t begin = i;
    while (i < tokens.size() && !special.contains(tokens[i])) ++i;
    writer.text(tokenizer.decode(tokens.subspan(begin, i - begin)));
  }
  return writer.take();
}

}  // namespace temper::data
