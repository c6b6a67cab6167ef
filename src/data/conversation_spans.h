// Rendered text in stretches: special tokens apart from text, what is trained apart from what is not.
//
// The official program writes one string and lets the tokenizer find the special tokens in it. Here the difference is
// kept from the start, so that the text of a special token inside a message never becomes that token.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace temper::data {

// One special token, or text.
struct ConversationSpan {
  std::string text;
  bool is_special = false;
  bool trained = false;
  bool operator==(const ConversationSpan&) const = default;
};

struct EncodedConversation {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;  // by token: 1 = the loss is on predicting it
};

// Collects spans; neighbouring texts that are trained alike become one.
class SpanWriter {
 public:
  void special(std::string_view token, bool trained = false);
  void text(std::string_view text, bool trained = false);
  // Text of the format itself: the special tokens in it are special tokens.
  void template_text(std::string_view text, bool trained = false);
  std::vector<ConversationSpan> take() { return std::move(spans_); }

 private:
  std::vector<ConversationSpan> spans_;
};

// Text as the official program's tokenizer sees it: every occurrence of a special token's text is that token.
std::vector<ConversationSpan> split_special(std::string_view text);

// The joined text of the spans.
std::string join_spans(std::span<const ConversationSpan> spans);

// Tokens of rendered spans. Refuses (kInvalidArgument) a tokenizer that lacks one of the special tokens, naming it.
EncodedConversation encode_spans(std::span<const ConversationSpan> spans, const Tokenizer& tokenizer);

// The spans that tokens stand for, none trained. Refuses what Tokenizer::decode refuses.
std::vector<ConversationSpan> decode_spans(std::span<const int32_t> tokens, const Tokenizer& tokenizer);

}  // namespace temper::data
