#include "data/show.h"

#include <fmt/format.h>

#include <optional>
#include <string_view>
#include <unordered_set>

#include "data/special_tokens.h"
#include "data/unseen.h"

namespace temper::data {
namespace {

// Writes stretches of tokens that look alike.
class TokenWriter {
 public:
  explicit TokenWriter(const ShowOptions& options) : options_(options) {}

  void special(std::string_view text, int32_t id, bool trained) {
    begin(trained);
    if (options_.colors) {
      out_ += trained ? "\x1b[0;7;32m" : "\x1b[0;7;2m";
      append_visible(text, out_);
      out_ += trained ? kTrainedColor : kContextColor;
    } else {
      out_ += '{';
      append_visible(text, out_);
      out_ += '}';
    }
    if (options_.ids) out_ += fmt::format("({})", id);
  }

  // With ids every token stands alone; without them the bytes of a character may come from several.
  void text(std::string_view bytes, int32_t id, bool trained) {
    if (trained != trained_) begin(trained);
    pending_ += bytes;
    if (!options_.ids) return;
    const bool breaks_line = pending_.find('\n') != pending_.npos;
    flush(/*break_lines=*/false);
    out_ += fmt::format("({})", id);
    if (breaks_line) out_ += '\n';
  }

  std::string finish() {
    begin(false);
    if (options_.colors) out_ += "\x1b[0m";
    return out_ + "\n";
  }

 private:
  static constexpr std::string_view kTrainedColor = "\x1b[0;32m", kContextColor = "\x1b[0;2m";

  void begin(bool trained) {
    flush(true);
    if (options_.colors && (trained != trained_ || out_.empty())) out_ += trained ? kTrainedColor : kContextColor;
    if (!options_.colors && trained != trained_) out_ += trained ? "[[" : "]]";
    trained_ = trained;
  }

  void flush(bool break_lines) {
    std::string visible;
    append_visible(pending_, visible);
    for (const char c : visible) {
      if (c == '\n') out_ += "↵";
      if (c != '\n' || break_lines) out_ += c;
    }
    pending_.clear();
  }

  ShowOptions options_;
  std::string out_, pending_;
  bool trained_ = false;
};

}  // namespace

std::string show_tokens(const Example& example, const Tokenizer& tokenizer, const ShowOptions& options) {
  std::unordered_set<int32_t> special;
  for (const auto& [text, id] : tokenizer.added_tokens()) special.insert(id);
  TokenWriter writer(options);
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    const int32_t id = example.tokens[i];
    const bool trained = example.trained[i] != 0;
    if (special.contains(id)) {
      writer.special(tokenizer.token_bytes(id), id, trained);
    } else {
      writer.text(tokenizer.token_bytes(id), id, trained);
    }
  }
  return writer.finish();
}

TokenCounts count_tokens(const Example& example, const Tokenizer& tokenizer) {
  const auto think = tokenizer.token_id(kThink), end_think = tokenizer.token_id(kEndThink);
  TokenCounts counts;
  int64_t since_think = -1;  // trained tokens since <think>; below 0: outside of thoughts
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    const bool trained = example.trained[i] != 0;
    ++counts.num_tokens;
    counts.num_trained += trained;
    if (example.tokens[i] == think) {
      since_think = 0;
    } else if (example.tokens[i] == end_think) {
      if (since_think >= 0) counts.num_reasoning += since_think + trained;
      since_think = -1;
    } else if (since_think >= 0) {
      since_think += trained;
    }
  }
  return counts;
}

}  // namespace temper::data
