// The V4 conversation format: messages to tokens, with a mask of the tokens that are trained.
//
// Source: architecture page 11.2 (the rule), 11.3 (examples). With B, E, U, A for BOS, EOS, <｜User｜>,
// <｜Assistant｜>:
//   chat                   B system U user A </think> answer E ...
//   thinking, last turn    ... U user A <think> reasoning </think> answer E
//   thinking, old turns    like chat while drop_thinking is on
// Trained: what the assistant wrote, from after A <think> or A </think> up to and with E.
// Content is text: the text of a special token inside it never becomes that token.
// Tools, tool results, response formats and tasks are not rendered; `records` refuses them by name.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace temper::data {

// A call of a tool by the assistant.
struct ToolCall {
  std::string id = {};  // ties a result to its call; not rendered
  std::string name = {};
  std::string arguments = {};  // JSON text of an object, as given; any other text is rendered as one parameter
};

struct Message {
  std::string role = {};  // system | user | assistant | developer | tool | latest_reminder
  std::string content = {};
  std::string reasoning_content = {};     // of an assistant; rendered in thinking mode only
  std::string tools = {};                 // of a system or developer: JSON text of a list of tools; empty = none
  std::string response_format = {};       // of a system or developer: JSON text of a schema; empty = none
  std::vector<ToolCall> tool_calls = {};  // of an assistant
  std::string tool_call_id = {};          // of a tool: the call that this is the result of
  std::string task = {};                  // of a user: action | query | authority | domain | title | read_url
  bool without_eos = false;               // "wo_eos": this assistant message is not ended
};

enum class ConversationMode : uint8_t { kChat, kThinking };

// How long the model is asked to think. Only kMax changes the text, and only in thinking mode: by a fixed block at its
// very start (architecture page 11.5).
enum class ReasoningEffort : uint8_t { kNone, kLow, kHigh, kMax };

struct ConversationOptions {
  ConversationMode mode = ConversationMode::kChat;
  // Thinking mode: assistant messages before the last user or developer message lose their reasoning, developer
  // messages before it are left out.
  bool drop_thinking = true;
  bool train_on_history = true;  // false: only the last assistant message is trained
  ReasoningEffort effort = ReasoningEffort::kNone;
};

// A stretch of the rendered conversation: one special token, or text.
struct ConversationSpan {
  std::string text;
  bool is_special = false;
  bool trained = false;
};

struct EncodedConversation {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;  // by token: 1 = the loss is on predicting it
};

// Renders messages. num_untrained: so many messages from the front are context whatever their role.
// Errors begin with `origin` (a file and line) and name the message by its index from 0. Refuses kInvalidArgument: no
// message, an unknown role, an assistant message that is empty or answers nobody; kUnsupported: role "tool".
std::vector<ConversationSpan> render_conversation(std::span<const Message> messages, const ConversationOptions& options,
                                                  std::string_view origin, size_t num_untrained = 0);

// Tokens of rendered spans; neighbouring texts are encoded as one. Refuses (kInvalidArgument) a tokenizer that lacks
// one of the special tokens, naming it.
EncodedConversation encode_spans(std::span<const ConversationSpan> spans, const Tokenizer& tokenizer);

// render_conversation and encode_spans.
EncodedConversation encode_conversation(std::span<const Message> messages, const ConversationOptions& options,
                                        const Tokenizer& tokenizer, std::string_view origin, size_t num_untrained = 0);

// The tokens after which the assistant is to write; they end with A </think> or A <think>. The last message must be of
// the user or the developer, else kInvalidArgument.
std::vector<int32_t> encode_prompt(std::span<const Message> messages, const ConversationOptions& options,
                                   const Tokenizer& tokenizer, std::string_view origin);

}  // namespace temper::data
