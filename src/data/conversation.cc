#include "data/conversation.h"

#include <algorithm>

#include "base/error.h"
#include "data/conversation_turns.h"
#include "data/python_json.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

// Writes the turns of one conversation; complaints begin with its origin.
class Renderer {
 public:
  Renderer(const Turns& turns, const ConversationOptions& options, std::string_view origin)
      : turns_(turns.turns),
        drops_(turns.drops_thinking),
        last_question_(turns.last_question),
        thinking_(options.mode == ConversationMode::kThinking),
        prose_(options.prose),
        origin_(origin) {}

  void start(ReasoningEffort effort) {
    out_.special(kBos);
    if (thinking_ && effort == ReasoningEffort::kMax) out_.template_text(prose_.get(ProseBlock::kEffortMax, origin_));
  }

  void turn(size_t i, bool trained) {
    const Turn& turn = turns_[i];
    if (turn.role == "assistant") {
      answer(i, trained);
    } else {
      if (turn.asks()) out_.special(kUser);
      if (turn.role == "latest_reminder") out_.special(kLatestReminder);
      out_.text(turn.content);
      instructions(turn);
    }
    const bool answer_follows =
        i + 1 == turns_.size() || turns_[i + 1].role == "assistant" || turns_[i + 1].role == "latest_reminder";
    if (answer_follows) ask(i);
  }

  std::vector<ConversationSpan> take() { return out_.take(); }

 private:
  void instructions(const Turn& turn) {
    if (!turn.tool_schemas.empty()) {
      out_.text("\n\n");
      out_.template_text(prose_.get(ProseBlock::kToolsBefore, origin_));
      out_.text(turn.tool_schemas);
      out_.template_text(prose_.get(ProseBlock::kToolsAfter, origin_));
    }
    if (!turn.response_schema.empty()) {
      out_.text("\n\n");
      out_.template_text(prose_.get(ProseBlock::kResponseFormat, origin_));
      out_.text(turn.response_schema);
    }
  }

  // What makes the assistant write after turn i.
  void ask(size_t i) {
    const Turn& turn = turns_[i];
    if (!turn.task.empty()) {
      if (turn.task == "action") {
        out_.special(kAssistant);
        out_.special(thinking_ ? kThink : kEndThink);
      }
      for (const TaskToken& known : kTaskTokens) {
        if (known.task == turn.task) out_.special(known.token);
      }
    } else if (turn.asks()) {
      out_.special(kAssistant);
      out_.special(thinking_ && (!drops_ || static_cast<int64_t>(i) >= last_question_) ? kThink : kEndThink);
    }
  }

  void answer(size_t i, bool trained) {
    const Message& message = *turns_[i].message;
    const bool answers_task = i > 0 && !turns_[i - 1].task.empty();
    const bool thinks = thinking_ && !answers_task && (!drops_ || static_cast<int64_t>(i) > last_question_);
    if (message.content.empty() && message.tool_calls.empty() && !(thinks && !message.reasoning_content.empty()))
      fail(ErrorCode::kInvalidArgument, "{}: message {} is an empty message of the assistant", origin_,
           turns_[i].index);
    if (thinks) {
      out_.text(message.reasoning_content, trained);
      out_.special(kEndThink, trained);
    }
    out_.text(message.content, trained);
    if (!message.tool_calls.empty()) calls(i, trained);
    if (!message.without_eos) out_.special(kEos, trained);
  }

  void calls(size_t i, bool trained) {
    const auto mark = [&](std::string_view before, std::string_view after) {
      out_.text(before, trained);
      out_.special(kDsml, trained);
      out_.text(after, trained);
    };
    mark("\n\n<", "tool_calls>\n");
    for (const ToolCall& call : turns_[i].message->tool_calls) {
      mark("<", "invoke name=\"" + call.name + "\">\n");
      bool is_first = true;
      for (const JsonMember& parameter : parameters(call, turns_[i].index)) {
        const char* is_string = parameter.kind == JsonKind::kString ? "true" : "false";
        mark(is_first ? "<" : "\n<", fmt::format("parameter name=\"{}\" string=\"{}\">", parameter.key, is_string));
        out_.text(parameter.text, trained);
        mark("</", "parameter>");
        is_first = false;
      }
      mark("\n</", "invoke>\n");
    }
    mark("</", "tool_calls>");
  }

  std::vector<JsonMember> parameters(const ToolCall& call, size_t index) const {
    auto arguments = read_python_json(call.arguments);
    if (!arguments) return {{"arguments", JsonKind::kString, call.arguments}};
    if (arguments->kind != JsonKind::kObject)
      fail(ErrorCode::kInvalidArgument,
           "{}: message {} calls \"{}\" with arguments that are JSON but not an object of named values", origin_, index,
           call.name);
    return std::move(arguments->members);
  }

  const std::vector<Turn>& turns_;
  const bool drops_;
  const int64_t last_question_;
  const bool thinking_;
  const ProseBlocks& prose_;
  std::string_view origin_;
  SpanWriter out_;
};

}  // namespace

std::vector<ConversationSpan> render_conversation(std::span<const Message> messages, const ConversationOptions& options,
                                                  std::string_view origin, size_t num_untrained) {
  const Turns turns = make_turns(messages, options, origin);
  const auto last_answer =
      std::find_if(turns.turns.rbegin(), turns.turns.rend(), [](const Turn& turn) { return turn.role == "assistant"; });
  Renderer renderer(turns, options, origin);
  if (options.num_context == 0) renderer.start(options.effort);
  for (size_t i = 0; i < turns.turns.size(); ++i) {
    const Turn& turn = turns.turns[i];
    if (turn.index < options.num_context) continue;
    renderer.turn(i, turn.index >= num_untrained && (options.train_on_history || &turn == &*last_answer));
  }
  return renderer.take();
}

EncodedConversation encode_conversation(std::span<const Message> messages, const ConversationOptions& options,
                                        const Tokenizer& tokenizer, std::string_view origin, size_t num_untrained) {
  return encode_spans(render_conversation(messages, options, origin, num_untrained), tokenizer);
}

std::vector<int32_t> encode_prompt(std::span<const Message> messages, const ConversationOptions& options,
                                   const Tokenizer& tokenizer, std::string_view origin) {
  if (!make_turns(messages, options, origin).awaits_answer)
    fail(ErrorCode::kInvalidArgument,
         "{}: a prompt must end with a message of the user, the developer or a tool, or with a task; its last message "
         "is of \"{}\"",
         origin, messages.back().role);
  return encode_conversation(messages, options, tokenizer, origin).tokens;
}

std::vector<ConversationPart> conversation_parts(std::span<const Message> messages, const ConversationOptions& options,
                                                 size_t num_untrained) {
  std::vector<ConversationPart> whole = {{messages.size(), num_untrained}};
  if (options.mode != ConversationMode::kThinking || !options.drop_thinking || !options.train_on_history) return whole;
  if (std::any_of(messages.begin(), messages.end(), has_tools)) return whole;
  std::vector<ConversationPart> parts;
  bool drops_reasoning = false;  // some trained reasoning is followed by a question
  bool has_reasoning = false;
  for (size_t i = num_untrained; i < messages.size(); ++i) {
    const Message& message = messages[i];
    if (message.role == "assistant") {
      parts.push_back({i + 1, i});
      has_reasoning = has_reasoning || !message.reasoning_content.empty();
    } else if (message.role != "system" && message.role != "latest_reminder") {
      drops_reasoning = drops_reasoning || has_reasoning;
    }
  }
  return drops_reasoning ? parts : whole;
}

}  // namespace temper::data
