#include "data/lint_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "data/mojibake.h"
#include "data/special_tokens.h"
#include "data/unseen.h"

namespace temper::data {
namespace {

// What other models' templates write between messages; in a record's text it was left over from one.
constexpr std::string_view kForeignMarks[] = {
    "<|im_start|>",        "<|im_end|>",        "<|endoftext|>",   "<|eot_id|>",    "<|end|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|User|>",        "<|Assistant|>", "<|begin_of_sentence|>",
    "<|end_of_sentence|>", "[/INST]",           "<start_of_turn>", "<end_of_turn>"};

// A tag of thoughts is written by the format too, yet people may speak of it.
bool is_think_tag(std::string_view mark) { return mark == kThink || mark == kEndThink; }

// A text of the form <｜...｜>, as of other models of DeepSeek: <｜tool▁calls▁begin｜>.
std::optional<std::string_view> find_deepseek_mark(std::string_view text) {
  constexpr std::string_view kBegin = "<｜", kEnd = "｜>";
  constexpr size_t kLongest = 64;
  for (size_t at = text.find(kBegin); at != text.npos; at = text.find(kBegin, at + 1)) {
    const size_t end = text.substr(at, kLongest).find(kEnd, kBegin.size());
    if (end != text.npos) return text.substr(at, end + kEnd.size());
  }
  return std::nullopt;
}

// The first character of a kind, and how many there are.
struct Sighting {
  int64_t count = 0;
  char32_t first = 0;
  size_t at = 0;
  void add(char32_t c, size_t place) {
    if (count++ == 0) first = c, at = place;
  }
};

std::string describe(const LintText& text, const Sighting& seen, std::string_view what) {
  return fmt::format("{} has {} U+{:04X}{} ({})", text.where, what, static_cast<uint32_t>(seen.first),
                     seen.count > 1 ? fmt::format(" and {} more of this kind", seen.count - 1) : "",
                     excerpt(text.text, seen.at));
}

struct Sightings {
  Sighting control, replacement, suspicious, trick;
};

Sightings look_at_characters(std::string_view text) {
  Sightings seen;
  char32_t before = ' ';
  bool in_flag = false;  // after a black flag and its tags
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (byte >= 0x20 && byte < 0x7F) {  // most of most texts
      before = byte, in_flag = false, ++at;
      continue;
    }
    const auto [c, length] = first_character(text.substr(at));
    const char32_t after = at + length < text.size() ? first_character(text.substr(at + length)).code : U' ';
    if (is_control(c)) seen.control.add(c, at);
    if (c == 0xFFFD) seen.replacement.add(c, at);
    const Hidden hidden = hidden_kind(c, before, after, in_flag);
    if (hidden == Hidden::kSuspicious) seen.suspicious.add(c, at);
    if (hidden == Hidden::kTrick) seen.trick.add(c, at);
    in_flag = c == 0x1F3F4 || (in_flag && c >= 0xE0000 && c <= 0xE007F);
    before = c, at += length;
  }
  return seen;
}

std::string without_hidden(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto [c, length] = first_character(text.substr(at));
    if (hidden_kind(c, 0, 0, false) == Hidden::kNo) out += text.substr(at, length);
    at += length;
  }
  return out;
}

}  // namespace

TextLinter::TextLinter(const Tokenizer* tokenizer) {
  int32_t id = 0;
  for (const std::string_view token : kConversationTokens) marks_.add(token, id++);
  for (const std::string_view mark : kForeignMarks) marks_.add(mark, id++);
  if (!tokenizer) return;
  // Some tokenizers have runs of blanks or words among their added tokens; those steer nothing.
  for (const auto& [token, unused] : tokenizer->added_tokens()) {
    if (token.find_first_of("<|[") != token.npos || token.find("｜") != token.npos) marks_.add(token, id++);
  }
}

// The first mark; a tag of thoughts only if there is no other.
std::string_view TextLinter::find_mark(std::string_view text) const {
  std::vector<AddedTokenFinder::Stretch> stretches;
  marks_.cut(text, stretches);
  std::string_view found;
  for (const auto& stretch : stretches) {
    if (stretch.id >= 0 && (found.empty() || is_think_tag(found))) found = stretch.text;
  }
  return found.empty() || is_think_tag(found) ? find_deepseek_mark(text).value_or(found) : found;
}

void TextLinter::check_marks(const LintText& text, LintFindings& findings) const {
  const std::string_view mark = find_mark(text.text);
  if (mark.empty()) return;
  const size_t at = static_cast<size_t>(mark.data() - text.text.data());
  const std::string what = fmt::format("{} has {} ({})", text.where, mark, excerpt(text.text, at));
  if (is_think_tag(mark)) {
    if (text.trained) {
      findings.add(LintRule::kThinkTags, what);
    } else {
      findings.add(LintRule::kControlToken, Severity::kWarning, what);
    }
    return;
  }
  const bool foreign = std::find(std::begin(kForeignMarks), std::end(kForeignMarks), mark) != std::end(kForeignMarks);
  findings.add(foreign ? LintRule::kForeignTemplate : LintRule::kControlToken, what);
}

void TextLinter::check(const LintText& text, LintFindings& findings) const {
  const Severity severity = text.trained ? Severity::kError : Severity::kWarning;
  const Sightings seen = look_at_characters(text.text);
  check_marks(text, findings);
  if (seen.suspicious.count + seen.trick.count > 0) {
    const bool is_trick = seen.trick.count > 0;
    findings.add(LintRule::kHiddenCharacter, is_trick ? Severity::kError : Severity::kWarning,
                 describe(text, is_trick ? seen.trick : seen.suspicious, "the unseen character"));
    const std::string bare = without_hidden(text.text);
    if (const std::string_view mark = find_mark(bare); !mark.empty() && find_mark(text.text).empty())
      findings.add(LintRule::kControlToken, Severity::kError,
                   fmt::format("{} hides {} by unseen characters inside it", text.where, mark));
  }
  if (seen.control.count > 0)
    findings.add(LintRule::kControlCharacter, severity, describe(text, seen.control, "the control character"));
  if (seen.replacement.count > 0)
    findings.add(LintRule::kMojibake, severity,
                 describe(text, seen.replacement, "the mark of an undecodable character,"));
  if (const auto found = find_mojibake(text.text))
    findings.add(LintRule::kMojibake, severity,
                 fmt::format("{} looks like UTF-8 that was read as Latin-1; this was \"{}\" ({})", text.where,
                             found->was, excerpt(text.text, found->at)));
}

}  // namespace temper::data
