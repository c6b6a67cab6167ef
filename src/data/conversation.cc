#include "data/conversation.h"

#include <algorithm>

#include "base/error.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

bool asks(const Message& message) { return message.role == "user" || message.role == "developer"; }

// Index of the last user or developer message, or -1.
int64_t last_question(std::span<const Message* const> messages) {
  for (auto i = static_cast<int64_t>(messages.size()) - 1; i >= 0; --i) {
    if (asks(*messages[static_cast<size_t>(i)])) return i;
  }
  return -1;
}

void check_role(const Message& message, size_t index, std::string_view origin) {
  const std::string& role = message.role;
  if (role == "tool")
    fail(ErrorCode::kUnsupported, "{}: message {} has the role \"tool\"; tool results are not rendered yet", origin,
         index);
  if (!message.tools.empty() || !message.response_format.empty() || !message.tool_calls.empty() ||
      !message.task.empty())
    fail(ErrorCode::kUnsupported, "{}: message {} has tools, tool calls, a response format or a task; not rendered yet",
         origin, index);
  if (!asks(message) && role != "system" && role != "assistant" && role != "latest_reminder")
    fail(ErrorCode::kInvalidArgument,
         "{}: message {} has the unknown role \"{}\"; known are system, user, assistant, developer, latest_reminder",
         origin, index, role);
}

// Every assistant message must answer a user or developer message, with only reminders between.
void check_messages(std::span<const Message> messages, std::string_view origin) {
  if (messages.empty()) fail(ErrorCode::kInvalidArgument, "{}: the conversation has no messages", origin);
  bool is_asked = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    check_role(message, i, origin);
    if (message.role == "assistant" && !is_asked)
      fail(ErrorCode::kInvalidArgument,
           "{}: message {} is of the assistant, but no user or developer message asks for it", origin, i);
    if (message.role != "latest_reminder") is_asked = asks(message);
  }
}

class Renderer {
 public:
  explicit Renderer(std::vector<ConversationSpan>& spans) : spans_(spans) {}

  void special(std::string_view token, bool trained = false) { spans_.push_back({std::string(token), true, trained}); }

  void text(std::string_view content, bool trained = false) {
    if (content.empty()) return;
    if (!spans_.empty() && !spans_.back().is_special && spans_.back().trained == trained) {
      spans_.back().text += content;
    } else {
      spans_.push_back({std::string(content), false, trained});
    }
  }

 private:
  std::vector<ConversationSpan>& spans_;
};

void render_assistant(const Message& message, bool with_reasoning, bool trained, Renderer& out) {
  if (with_reasoning) {
    out.text(message.reasoning_content, trained);
    out.special(kEndThink, trained);
  }
  out.text(message.content, trained);
  if (!message.without_eos) out.special(kEos, trained);
}

}  // namespace

std::vector<ConversationSpan> render_conversation(std::span<const Message> messages, const ConversationOptions& options,
                                                  std::string_view origin, size_t num_untrained) {
  check_messages(messages, origin);
  const bool thinking = options.mode == ConversationMode::kThinking;
  const bool drops = thinking && options.drop_thinking;
  std::vector<const Message*> kept;
  for (const Message& message : messages) kept.push_back(&message);
  if (drops) {
    const Message* last = kept[static_cast<size_t>(std::max<int64_t>(last_question(kept), 0))];
    std::erase_if(kept, [&](const Message* message) { return message->role == "developer" && message < last; });
  }
  const int64_t question = last_question(kept);
  const Message* last_answer = nullptr;
  for (const Message* message : kept) {
    if (message->role == "assistant") last_answer = message;
  }
  std::vector<ConversationSpan> spans;
  Renderer out(spans);
  out.special(kBos);
  for (size_t i = 0; i < kept.size(); ++i) {
    const Message& message = *kept[i];
    const auto index = &message - messages.data();
    const bool thinks_here = thinking && (!drops || static_cast<int64_t>(i) >= question);
    if (message.role == "assistant") {
      if (message.content.empty() && !(thinks_here && !message.reasoning_content.empty()))
        fail(ErrorCode::kInvalidArgument, "{}: message {} is an empty message of the assistant", origin, index);
      const bool trained =
          static_cast<size_t>(index) >= num_untrained && (options.train_on_history || &message == last_answer);
      render_assistant(message, thinks_here, trained, out);
      continue;
    }
    if (asks(message)) out.special(kUser);
    if (message.role == "latest_reminder") out.special(kLatestReminder);
    out.text(message.content);
    const bool answer_follows =
        i + 1 == kept.size() || kept[i + 1]->role == "assistant" || kept[i + 1]->role == "latest_reminder";
    if (asks(message) && answer_follows) {
      out.special(kAssistant);
      out.special(thinks_here ? kThink : kEndThink);
    }
  }
  return spans;
}

EncodedConversation encode_spans(std::span<const ConversationSpan> spans, const Tokenizer& tokenizer) {
  EncodedConversation out;
  for (const ConversationSpan& span : spans) {
    if (span.is_special) {
      const auto id = tokenizer.token_id(span.text);
      if (!id)
        fail(ErrorCode::kInvalidArgument,
             "the tokenizer has no token \"{}\", which the conversation format needs; use a DeepSeek-V4 tokenizer or "
             "one made "
             "by `temper data train-tokenizer`",
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

EncodedConversation encode_conversation(std::span<const Message> messages, const ConversationOptions& options,
                                        const Tokenizer& tokenizer, std::string_view origin, size_t num_untrained) {
  return encode_spans(render_conversation(messages, options, origin, num_untrained), tokenizer);
}

std::vector<int32_t> encode_prompt(std::span<const Message> messages, const ConversationOptions& options,
                                   const Tokenizer& tokenizer, std::string_view origin) {
  if (messages.empty() || !asks(messages.back()))
    fail(ErrorCode::kInvalidArgument,
         "{}: a prompt must end with a message of the user or the developer; its last message is of \"{}\"", origin,
         messages.empty() ? "nobody" : messages.back().role);
  return encode_conversation(messages, options, tokenizer, origin).tokens;
}

}  // namespace temper::data
