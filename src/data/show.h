// One sample as the model sees it: its tokens as text, those that are trained told from those that are not.
#pragma once

#include <cstdint>
#include <string>

#include "data/reader.h"
#include "data/tokenizer.h"

namespace temper::data {

struct ShowOptions {
  bool colors = false;  // trained green, the rest dim, special tokens reversed. Else [[trained]] and {special}
  bool ids = false;     // "text(id)" for every token
};

// The tokens as text. A line break is "↵" and a line break, characters that nobody sees are spelled \u{200B}, bytes
// that are no character \xFF, so that nothing acts on the terminal. Only special tokens are marked as such: the same
// text in a message is text. Ends with a line break.
std::string show_tokens(const Example& example, const Tokenizer& tokenizer, const ShowOptions& options);

struct TokenCounts {
  int64_t num_tokens = 0, num_trained = 0;
  int64_t num_reasoning = 0;  // trained, between <think> and </think> or from the start of a turn to </think>
  int64_t num_prompt() const { return num_tokens - num_trained; }
  int64_t num_answer() const { return num_trained - num_reasoning; }
};
TokenCounts count_tokens(const Example& example, const Tokenizer& tokenizer);

}  // namespace temper::data
