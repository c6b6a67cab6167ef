#include "data/lint.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/thread.h"
#include "data/conversation_spans.h"
#include "data/lint_tools.h"
#include "data/lint_turns.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

// Records that are looked at together: enough for the threads, little enough to stay a stream.
constexpr size_t kBatchRecords = 512;

// Whether the blocks of prose that these messages need are there.
bool has_prose(std::span<const Message> messages, const ConversationOptions& options) {
  const auto is_there = [&](ProseBlock block) { return options.prose.find(block) != nullptr; };
  if (options.effort == ReasoningEffort::kMax && !is_there(ProseBlock::kEffortMax)) return false;
  return std::all_of(messages.begin(), messages.end(), [&](const Message& message) {
    return (message.tools.empty() || (is_there(ProseBlock::kToolsBefore) && is_there(ProseBlock::kToolsAfter))) &&
           (message.response_format.empty() || is_there(ProseBlock::kResponseFormat));
  });
}

LintRule rule_of(RemarkKind kind) {
  switch (kind) {
    case RemarkKind::kUnknownField:
      return LintRule::kUnknownField;
    case RemarkKind::kUnsupportedPart:
      return LintRule::kUnsupportedPart;
    default:
      return LintRule::kBrokenToolCall;
  }
}

// An error's message without the place that it begins with.
std::string without_origin(std::string_view message, std::string_view origin) {
  if (!message.starts_with(origin)) return std::string(message);
  message.remove_prefix(origin.size());
  const size_t text = message.find(": ");  // a column may stand before it
  return std::string(text == message.npos ? message : message.substr(text + 2));
}

}  // namespace

// What one record gave.
struct Linter::Result {
  explicit Result(const std::string& origin) : findings(origin) {}
  LintFindings findings;
  bool is_read = false;
  bool is_unrendered = false;
  int64_t num_tokens = 0, num_trained_tokens = 0;
  RecordHashes hashes;
};

int64_t LintReport::total_errors() const { return std::accumulate(num_errors.begin(), num_errors.end(), int64_t{0}); }
int64_t LintReport::total_warnings() const {
  return std::accumulate(num_warnings.begin(), num_warnings.end(), int64_t{0});
}

Linter::Linter(const LintOptions& options, Visit visit)
    : options_(options), visit_(std::move(visit)), text_linter_(options.tokenizer) {
  if (options.max_tokens > 0 && !options.tokenizer)
    fail(ErrorCode::kInvalidArgument,
         "a limit of {} tokens needs a tokenizer to count them: give --tokenizer or --model", options.max_tokens);
  for (int i = 0; i < num_threads(); ++i)
    parsers_.emplace_back(RecordOptions{.format = options.format, .with_remarks = true});
}

void Linter::add(const std::filesystem::path& path) {
  RecordFile file(path);
  ++report_.num_files;
  report_.num_bytes += file.num_bytes();
  std::vector<RecordText> batch;
  std::vector<Result> results;
  for (bool more = true; more;) {
    batch.clear(), results.clear();
    try {
      while (batch.size() < kBatchRecords) {
        const auto text = file.next();
        if (!(more = text.has_value())) break;
        batch.push_back(*text);
        results.emplace_back(file.origin(*text));
      }
    } catch (const Error& error) {  // a list that breaks off: what came before it is looked at
      more = false;
      LintFinding finding = {LintRule::kUnreadable, Severity::kError, path.string(),
                             without_origin(error.what(), path.string())};
      ++report_.num_errors[static_cast<size_t>(finding.rule)];
      visit_(finding);
    }
    parallel_for(static_cast<int64_t>(batch.size()), 8, [&](int64_t begin, int64_t end, int part) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
        lint(file, batch[i], parsers_[static_cast<size_t>(part)], results[i]);
    });
    for (size_t i = 0; i < batch.size(); ++i) merge(path.string(), batch[i].line, results[i]);
  }
}

// A linter goes on where a reader stops: what reading and rendering refuse becomes a finding.
void Linter::lint(const RecordFile& file, const RecordText& text, RecordParser& parser, Result& out) const {
  const std::string& origin = out.findings.origin();
  try {
    const Record record = file.kind() == RecordFileKind::kPlainText
                              ? parse_plain_text(text.text, origin.substr(0, origin.rfind(':')))
                              : parser.parse(text.text, origin);
    const std::vector<Message> messages =
        record.kind == RecordKind::kText ? std::vector<Message>() : record_messages(record);
    lint_record(record, messages, out);
    out.hashes = hash_record(record, messages);
    out.is_read = true;
  } catch (const Error& error) {
    out.findings.add(LintRule::kUnreadable, without_origin(error.what(), origin));
  }
}

void Linter::lint_record(const Record& record, std::span<const Message> messages, Result& out) const {
  for (const Remark& remark : record.remarks) out.findings.add(rule_of(remark.kind), remark.text);
  lint_texts(record, messages, out.findings);
  if (record.kind == RecordKind::kText) {
    if (record.text.find_first_not_of(" \t\r\n") == record.text.npos)
      out.findings.add(LintRule::kNoTrainedToken, "the text is blank");
    return;
  }
  const size_t num_untrained = record.messages.empty() ? 0 : record.num_prompt_messages;
  lint_turns(messages, num_untrained, out.findings);
  lint_tools(messages, out.findings);
  if (out.findings.has_errors()) return;
  out.is_unrendered = !has_prose(messages, options_.conversation);
  if (!out.is_unrendered) lint_rendered(record, messages, out);
}

void Linter::lint_texts(const Record& record, std::span<const Message> messages, LintFindings& findings) const {
  if (record.kind == RecordKind::kText) text_linter_.check({record.text, "the text", true}, findings);
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const std::string where = fmt::format("message {} ({})", i, message.role);
    const bool trained = message.role == "assistant" && (record.messages.empty() || i >= record.num_prompt_messages);
    text_linter_.check({message.content, where, trained}, findings);
    text_linter_.check({message.reasoning_content, "the reasoning of " + where, trained}, findings);
    text_linter_.check({message.tools, "the tools of " + where, false}, findings);
    for (const ToolCall& call : message.tool_calls) {
      text_linter_.check({call.name, "the tool's name in " + where, trained}, findings);
      text_linter_.check({call.arguments, "the arguments in " + where, trained}, findings);
    }
  }
}

void Linter::lint_rendered(const Record& record, std::span<const Message> messages, Result& out) const {
  try {
    const size_t num_prompt = record.messages.empty() ? 0 : record.num_prompt_messages;
    EncodedConversation longest;  // of the examples that the conversation makes
    for (const auto& part : conversation_parts(messages, options_.conversation, num_prompt)) {
      const auto spans = render_conversation(messages.first(part.num_messages), options_.conversation, record.origin,
                                             part.num_untrained);
      if (!options_.tokenizer) continue;
      EncodedConversation encoded = encode_spans(spans, *options_.tokenizer);
      out.num_tokens += static_cast<int64_t>(encoded.tokens.size());
      out.num_trained_tokens += std::count(encoded.trained.begin(), encoded.trained.end(), uint8_t{1});
      if (encoded.tokens.size() > longest.tokens.size()) longest = std::move(encoded);
    }
    lint_length(longest, out.findings);
  } catch (const Error& error) {
    out.findings.add(LintRule::kNotRenderable, without_origin(error.what(), record.origin));
  }
}

void Linter::lint_length(const EncodedConversation& encoded, LintFindings& findings) const {
  const auto length = static_cast<int64_t>(encoded.tokens.size());
  if (options_.max_tokens == 0 || length <= options_.max_tokens) return;
  const auto cut = static_cast<size_t>(options_.max_tokens);
  const bool keeps_any = std::any_of(encoded.trained.begin(), encoded.trained.begin() + static_cast<int64_t>(cut),
                                     [](uint8_t trained) { return trained != 0; });
  findings.add(LintRule::kOverLong, fmt::format("{} tokens, the limit is {}; cut there, {}", length, cut,
                                                keeps_any ? "its end of turn is lost" : "no trained token is left"));
  // A call begins with the first DSML mark that is trained and ends with its turn.
  const auto dsml = options_.tokenizer->token_id(kDsml), eos = options_.tokenizer->token_id(kEos);
  bool in_call = false;
  for (size_t i = 0; i < cut; ++i) {
    if (encoded.tokens[i] == dsml && encoded.trained[i]) in_call = true;
    if (encoded.tokens[i] == eos) in_call = false;
  }
  if (in_call) findings.add(LintRule::kCutToolCall, fmt::format("a limit of {} tokens cuts a tool call", cut));
}

void Linter::merge(const std::string& file, int64_t line, Result& result) {
  ++report_.num_records;
  report_.num_unrendered += result.is_unrendered;
  report_.num_tokens += result.num_tokens;
  report_.num_trained_tokens += result.num_trained_tokens;
  if (result.is_read) {
    const auto seen = duplicates_.add(result.hashes, file, line);
    if (!seen.duplicate_of.empty())
      result.findings.add(LintRule::kDuplicate, "the record is a duplicate of " + seen.duplicate_of);
    if (!seen.same_prompt_as.empty())
      result.findings.add(LintRule::kSamePrompt, "another answer to the prompt of " + seen.same_prompt_as);
  }
  for (const LintFinding& finding : result.findings.take()) {
    ++(finding.severity == Severity::kError ? report_.num_errors
                                            : report_.num_warnings)[static_cast<size_t>(finding.rule)];
    visit_(finding);
  }
}

}  // namespace temper::data
