#include "data/conversation_turns.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "data/python_json.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

// Makes the turns of one conversation; complaints begin with its origin.
class TurnMaker {
 public:
  TurnMaker(std::span<const Message> messages, const ConversationOptions& options, std::string_view origin)
      : messages_(messages), options_(options), origin_(origin) {}

  Turns make() {
    if (messages_.empty()) fail(ErrorCode::kInvalidArgument, "{}: the conversation has no messages", origin_);
    bool is_asked = false;
    for (size_t i = 0; i < messages_.size(); ++i) {
      const Message& message = messages_[i];
      check_fields(message, i);
      if (message.role == "assistant" && !is_asked)
        invalid(i, "is of the assistant, but no user, developer or tool message and no task asks for it");
      if (message.role != "latest_reminder")
        is_asked =
            message.role == "user" || message.role == "developer" || message.role == "tool" || !message.task.empty();
      add(message, i);
    }
    close_parts();
    out_.awaits_answer = is_asked;
    decide_dropping();
    return std::move(out_);
  }

 private:
  template <class... Args>
  [[noreturn]] void invalid(size_t index, fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kInvalidArgument, "{}: message {} {}", origin_, index,
         fmt::format(format, std::forward<Args>(args)...));
  }

  void check_fields(const Message& message, size_t index) const {
    const std::string& role = message.role;
    const bool asks = role == "user" || role == "developer";
    const bool instructs = role == "system" || role == "developer";
    if (!asks && !instructs && role != "assistant" && role != "tool" && role != "latest_reminder")
      invalid(index, "has the unknown role \"{}\"; known are system, user, assistant, developer, tool, latest_reminder",
              role);
    if (!message.tools.empty() && !instructs)
      invalid(index, "of the role \"{}\" has tools; they belong to a system or developer message", role);
    if (!message.response_format.empty() && !instructs)
      invalid(index, "of the role \"{}\" has a response format; it belongs to a system or developer message", role);
    if (!message.tool_calls.empty() && role != "assistant")
      invalid(index, "of the role \"{}\" has tool calls; only the assistant calls tools", role);
    for (const ToolCall& call : message.tool_calls) {
      if (call.name.empty()) invalid(index, "calls a tool without a name");
    }
    if (role == "developer" && message.content.empty()) invalid(index, "is an empty message of the developer");
    if (message.task.empty()) return;
    if (!asks && role != "assistant")
      invalid(index, "of the role \"{}\" has a task; a task follows a user, developer or assistant message", role);
    if (std::none_of(kTaskTokens.begin(), kTaskTokens.end(), [&](const auto& it) { return it.task == message.task; }))
      invalid(index, "has the unknown task \"{}\"; known are action, query, authority, domain, title, read_url",
              message.task);
  }

  void add(const Message& message, size_t index) {
    const bool is_part = message.role == "user" || message.role == "tool";
    const bool can_join = is_part && !parts_.empty() && index != options_.num_context &&
                          (message.role == "tool" || out_.turns.back().task.empty());
    if (can_join && !message.task.empty())
      invalid(index, "has the task \"{}\" but is written as one with the message before it, where a task has no place",
              message.task);
    if (!can_join) {
      close_parts();
      out_.turns.push_back({.index = index,
                            .role = is_part ? "user" : std::string_view(message.role),
                            .message = &message,
                            .content = is_part ? "" : message.content,
                            .tool_schemas = schemas(message, index),
                            .response_schema = response_schema(message, index),
                            .task = message.task});
    }
    if (is_part) parts_.push_back(&message);
    if (!message.tool_calls.empty()) {
      call_order_.clear();
      for (size_t i = 0; i < message.tool_calls.size(); ++i) {
        if (const std::string& id = message.tool_calls[i].id; !id.empty()) call_order_[id] = i;
      }
    }
  }

  // Writes the parts that were collected into the last turn, results in the order of the calls that they answer.
  void close_parts() {
    if (parts_.empty()) return;
    const auto is_result = [](const Message* part) { return part->role == "tool"; };
    const auto order = [&](const Message* part) {
      const auto call = call_order_.find(part->tool_call_id);
      return call == call_order_.end() ? size_t{0} : call->second;
    };
    std::vector<const Message*> results;
    std::copy_if(parts_.begin(), parts_.end(), std::back_inserter(results), is_result);
    std::stable_sort(results.begin(), results.end(), [&](auto* a, auto* b) { return order(a) < order(b); });
    std::string& content = out_.turns.back().content;
    auto next_result = results.begin();
    for (const Message* part : parts_) {
      if (part != parts_.front()) content += "\n\n";
      content += is_result(part) ? "<tool_result>" + (*next_result++)->content + "</tool_result>" : part->content;
    }
    parts_.clear();
  }

  std::string schemas(const Message& message, size_t index) const {
    if (message.tools.empty()) return {};
    const auto list = read_python_json(message.tools);
    if (list && !list->is_truthy()) return {};
    if (!list || list->kind != JsonKind::kArray) invalid(index, "has tools that are not a JSON list");
    std::string out;
    for (size_t i = 0; i < list->members.size(); ++i) {
      const auto tool = read_python_json(list->members[i].text);
      const JsonMember* function = tool ? tool->find("function") : nullptr;
      if (function == nullptr || function->kind != JsonKind::kObject)
        invalid(index, "has a tool (number {} of its list) without an object \"function\"", i);
      out += (i > 0 ? "\n" : "") + function->text;
    }
    return out;
  }

  std::string response_schema(const Message& message, size_t index) const {
    if (message.response_format.empty()) return {};
    const auto schema = read_python_json(message.response_format);
    if (!schema) invalid(index, "has a response format that is not JSON");
    if (!schema->is_truthy()) return {};
    return schema->kind == JsonKind::kString ? python_json_string(schema->text) : schema->text;
  }

  void decide_dropping() {
    std::vector<Turn>& turns = out_.turns;
    const auto find_last_question = [&] {
      const auto last = std::find_if(turns.rbegin(), turns.rend(), [](const Turn& turn) { return turn.asks(); });
      return static_cast<int64_t>(turns.rend() - last) - 1;
    };
    out_.last_question = find_last_question();
    out_.drops_thinking =
        options_.mode == ConversationMode::kThinking && options_.drop_thinking &&
        std::all_of(turns.begin(), turns.end(), [](const Turn& turn) { return turn.tool_schemas.empty(); });
    if (!out_.drops_thinking || out_.last_question < 0) return;
    const size_t question = turns[static_cast<size_t>(out_.last_question)].index;
    std::erase_if(turns, [&](const Turn& turn) { return turn.role == "developer" && turn.index < question; });
    out_.last_question = find_last_question();
  }

  std::span<const Message> messages_;
  const ConversationOptions& options_;
  std::string_view origin_;
  Turns out_;
  std::vector<const Message*> parts_;                   // of the last turn, if it is a user's
  std::unordered_map<std::string, size_t> call_order_;  // of the last assistant message with calls, by id
};

}  // namespace

Turns make_turns(std::span<const Message> messages, const ConversationOptions& options, std::string_view origin) {
  return TurnMaker(messages, options, origin).make();
}

bool has_tools(const Message& message) {
  if (message.tools.empty()) return false;
  const auto list = read_python_json(message.tools);
  return list && list->is_truthy();
}

}  // namespace temper::data
