// What a linter finds in a text, whatever its place: marks that steer the model, characters that nobody sees, text that
// was decoded wrongly.
#pragma once

#include <string>
#include <string_view>

#include "data/added_tokens.h"
#include "data/lint_rules.h"
#include "data/tokenizer.h"

namespace temper::data {

// A text of a record and its place there.
struct LintText {
  std::string_view text;
  std::string where;     // "message 2", for the explanation
  bool trained = false;  // the model learns to write it: findings are graver
};

// Looks for the rules control-token, foreign-template, hidden-character, control-character, mojibake and think-tags.
class TextLinter {
 public:
  // The marks of the V4 format, whatever has the form <｜...｜> of DeepSeek's special tokens, and the added tokens of
  // the tokenizer if there is one.
  explicit TextLinter(const Tokenizer* tokenizer);

  // One finding per rule and text, with the first place. The text must be UTF-8.
  void check(const LintText& text, LintFindings& findings) const;

 private:
  void check_marks(const LintText& text, LintFindings& findings) const;
  std::string_view find_mark(std::string_view text) const;

  AddedTokenFinder marks_;
};

}  // namespace temper::data
