#include "data/conversation_parse.h"

#include <algorithm>

#include "base/error.h"
#include "data/flat_spans.h"
#include "data/python_json.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

// The task of a task's token; empty for any other.
std::string_view task_of(const ConversationSpan& span) {
  for (const TaskToken& known : kTaskTokens) {
    if (span.is_special && span.text == known.token) return known.task;
  }
  return {};
}

// The list of tools whose schemas these lines are; empty if they are not.
std::string tools_of_schemas(std::string_view lines) {
  std::string tools;
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    const auto schema = read_python_json(line);
    if (!schema || schema->kind != JsonKind::kObject) return {};
    tools += fmt::format(R"({}{{"type": "function", "function": {}}})", tools.empty() ? "[" : ", ", line);
    lines.remove_prefix(std::min(line.size() + 1, lines.size()));
  }
  return tools.empty() ? tools : tools + "]";
}

class ConversationReader {
 public:
  ConversationReader(std::span<const ConversationSpan> spans, const ProseBlocks& prose, std::string_view origin)
      : spans_(spans), prose_(prose), origin_(origin) {
    out_.options.prose = prose;
  }

  ParsedConversation read() {
    if (!take(kBos)) corrupt(fmt::format("it does not begin with {}", kBos));
    while (at_ < spans_.size()) read_message();
    Message* question = nullptr;
    for (size_t i = 0; i < out_.messages.size(); ++i) {
      if (asks(out_.messages[i])) question = &out_.messages[i];
    }
    // Thinking asked for before the last question: nothing was dropped.
    if (question != nullptr && !thinking_asked_.empty() && thinking_asked_.front() < question - out_.messages.data())
      out_.options.drop_thinking = false;
    check_rendering();
    return std::move(out_);
  }

 private:
  [[noreturn]] void corrupt(std::string_view what) const {
    fail(ErrorCode::kCorrupt, "{}: this is not a conversation of the V4 format: {}", origin_, what);
  }

  static bool asks(const Message& message) { return message.role == "user" || message.role == "developer"; }

  bool at(std::string_view token) const {
    return at_ < spans_.size() && spans_[at_].is_special && spans_[at_].text == token;
  }

  bool take(std::string_view token) {
    const bool is_there = at(token);
    at_ += is_there;
    return is_there;
  }

  // The spans up to the next token that begins or ends a message; with it if it is E and that is wanted.
  std::span<const ConversationSpan> take_content(bool with_end) {
    const size_t begin = at_;
    while (at_ < spans_.size() && !at(kBos) && !at(kUser) && !at(kAssistant) && !at(kLatestReminder) && !at(kEos) &&
           task_of(spans_[at_]).empty())
      ++at_;
    if (with_end) take(kEos);
    return spans_.subspan(begin, at_ - begin);
  }

  void read_message() {
    if (take(kUser)) {
      read_written("user");
    } else if (take(kLatestReminder)) {
      read_written("latest_reminder");
    } else if (take(kAssistant)) {
      read_answer();
    } else if (const std::string_view task = task_of(spans_[at_]); !task.empty()) {
      ++at_;
      ask_task(task);
      read_completion(ConversationMode::kChat);
    } else if (at(kBos) || at(kEos)) {
      corrupt(fmt::format("{} stands where no message begins or ends", spans_[at_].text));
    } else {
      read_written("system");
    }
  }

  void ask_task(std::string_view task) {
    if (out_.messages.empty()) corrupt(fmt::format("the task {} follows no message", task));
    out_.messages.back().task = task;
  }

  void read_answer() {
    const bool thinks = take(kThink);
    if (!thinks && !take(kEndThink))
      corrupt(fmt::format("{} is followed by neither {} nor {}", kAssistant, kThink, kEndThink));
    const bool is_task = at_ < spans_.size() && task_of(spans_[at_]) == "action";
    if (is_task) {
      ++at_;
      ask_task("action");
    }
    if (thinks) out_.options.mode = ConversationMode::kThinking;
    if (thinks && !is_task) thinking_asked_.push_back(static_cast<int64_t>(out_.messages.size()) - 1);
    read_completion(thinks && !is_task ? ConversationMode::kThinking : ConversationMode::kChat);
  }

  void read_completion(ConversationMode mode) {
    const auto content = take_content(/*with_end=*/true);
    if (content.empty()) return;  // a prompt: the answer is still to be written
    ParsedCompletion completion = parse_completion(content, mode);
    if (!completion.problem.empty() && !completion.message.without_eos)
      corrupt(fmt::format("message {}: {}", out_.messages.size(), completion.problem));
    out_.messages.push_back(std::move(completion.message));
  }

  // A message that is not the assistant's.
  void read_written(std::string_view role) {
    const FlatSpans flat(take_content(/*with_end=*/false));
    Message message;
    message.role = role;
    size_t begin = 0, end = flat.text().size();
    if (out_.messages.empty() && role == "system" && starts_with_effort(flat)) {
      out_.options.mode = ConversationMode::kThinking;  // only there is the block written
      out_.options.effort = ReasoningEffort::kMax;
      begin = prose_.find(ProseBlock::kEffortMax)->size();
      if (begin == end) return;
    }
    if (role != "latest_reminder") end = take_instructions(flat, end, message);
    if (const auto* special = flat.special_in(begin, end))
      corrupt(
          fmt::format("message {}: the special token {} stands inside the content; if it is a list of tools, the "
                      "model's blocks of prose are needed to read it",
                      out_.messages.size(), special->token));
    message.content = flat.text().substr(begin, end - begin);
    if (role == "user" && (!message.tools.empty() || !message.response_format.empty())) message.role = "developer";
    out_.messages.push_back(std::move(message));
  }

  bool starts_with_effort(const FlatSpans& flat) const {
    const std::string* effort = prose_.find(ProseBlock::kEffortMax);
    return effort != nullptr && flat.text().starts_with(*effort);
  }

  // Moves what stands after the content into tools and response_format; the end of the content.
  size_t take_instructions(const FlatSpans& flat, size_t end, Message& message) const {
    const std::string* format = prose_.find(ProseBlock::kResponseFormat);
    if (const size_t at = rfind_block(flat, format, end); at != std::string::npos) {
      std::string schema = flat.text().substr(at + 2 + format->size(), end - at - 2 - format->size());
      if (read_python_json(schema)) {
        message.response_format = std::move(schema);
        end = at;
      }
    }
    const std::string* before = prose_.find(ProseBlock::kToolsBefore);
    const std::string* after = prose_.find(ProseBlock::kToolsAfter);
    const size_t at = rfind_block(flat, before, end);
    if (at == std::string::npos || after == nullptr || !flat.text().substr(0, end).ends_with(*after)) return end;
    const size_t begin = at + 2 + before->size();
    if (begin + after->size() > end) return end;
    message.tools = tools_of_schemas(std::string_view(flat.text()).substr(begin, end - after->size() - begin));
    return message.tools.empty() ? end : at;
  }

  // Where a blank line and the block last stand before `end`.
  static size_t rfind_block(const FlatSpans& flat, const std::string* block, size_t end) {
    if (block == nullptr || end < block->size() + 2) return std::string::npos;
    return flat.text().rfind("\n\n" + *block, end - block->size() - 2);
  }

  void check_rendering() const {
    const auto again = render_conversation(out_.messages, out_.options, origin_);
    FlatSpans given(spans_), written(again);
    const std::string &a = given.text(), &b = written.text();
    const auto [first, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
    if (first != a.end() || other != b.end())
      corrupt(fmt::format("it differs at byte {} from what its messages are written as", first - a.begin()));
    if (!std::equal(given.specials().begin(), given.specials().end(), written.specials().begin(),
                    written.specials().end(), [](const auto& x, const auto& y) { return x.begin == y.begin; }))
      corrupt("other stretches of it are special tokens than in what its messages are written as");
  }

  std::span<const ConversationSpan> spans_;
  const ProseBlocks& prose_;
  std::string_view origin_;
  size_t at_ = 0;
  ParsedConversation out_;
  std::vector<int64_t> thinking_asked_;  // messages after which A <think> stands
};

}  // namespace

ParsedConversation parse_conversation(std::span<const ConversationSpan> spans, const ProseBlocks& prose,
                                      std::string_view origin) {
  return ConversationReader(spans, prose, origin).read();
}

}  // namespace temper::data
