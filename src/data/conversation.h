// The V4 conversation format: messages to tokens, with a mask of the tokens that are trained.
//
// Source: architecture page 11.2 (the rule), 11.3 (examples), 11.4 (tool calls), 11.5 (blocks of prose). With B, E, U,
// A for BOS, EOS, <｜User｜>, <｜Assistant｜>:
//   chat                   B system U user A </think> answer E ...
//   thinking, last turn    ... U user A <think> reasoning </think> answer E
//   thinking, old turns    like chat while drop_thinking is on and no message has tools
//   a task, then q         B U user <|query|> q E
// Results of tools are parts of a user's message, in the order of the calls. Schemas and arguments are written as
// Python writes JSON (python_json.h).
// Trained: what the assistant wrote - reasoning with its </think>, answer, tool calls, E. Not trained: A, the <think>
// or </think> that follows it, task tokens, and all other messages.
// Content is text: the text of a special token inside it never becomes that token.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/conversation_spans.h"
#include "data/prose_blocks.h"
#include "data/tokenizer.h"

namespace temper::data {

// A call of a tool by the assistant.
struct ToolCall {
  std::string id = {};  // ties a result to its call; not written
  std::string name = {};
  std::string arguments = {};  // JSON text of an object; text that is not JSON is written as one parameter
};

struct Message {
  std::string role = {};  // system | user | assistant | developer | tool | latest_reminder
  std::string content = {};
  std::string reasoning_content = {};     // of an assistant; written in thinking mode only
  std::string tools = {};                 // of a system or developer: JSON text of a list of tools; empty = none
  std::string response_format = {};       // of a system or developer: JSON text of a schema; empty = none
  std::vector<ToolCall> tool_calls = {};  // of an assistant
  std::string tool_call_id = {};          // of a tool: the call that this is the result of
  std::string task = {};                  // asked after a user, developer or assistant: a task of kTaskTokens
  bool without_eos = false;               // "wo_eos": this assistant message is not ended
};

enum class ConversationMode : uint8_t { kChat, kThinking };

// How long the model is asked to think. Only kMax changes the text, and only in thinking mode: by a block of prose at
// its very start.
enum class ReasoningEffort : uint8_t { kNone, kLow, kHigh, kMax };

struct ConversationOptions {
  ConversationMode mode = ConversationMode::kChat;
  // Thinking mode: assistant messages before the last user or developer message lose their reasoning, developer
  // messages before it are left out. Of no effect where a message has tools.
  bool drop_thinking = true;
  bool train_on_history = true;  // false: only the last assistant message is trained
  ReasoningEffort effort = ReasoningEffort::kNone;
  size_t num_context = 0;  // so many messages from the front stand already written, with B, before this text
  ProseBlocks prose = {};
};

// Renders messages. num_untrained: so many messages from the front are context whatever their role.
// Errors begin with `origin` (a file and line) and name the message by its index from 0. Refuses kInvalidArgument: no
// message; an unknown role or task; a field that the role does not have; tools or a response format that are not JSON
// of their kind; an assistant message that is empty or answers nobody; a task of a message that joins the one before;
// and what ProseBlocks::get refuses where a block is needed.
std::vector<ConversationSpan> render_conversation(std::span<const Message> messages, const ConversationOptions& options,
                                                  std::string_view origin, size_t num_untrained = 0);

// render_conversation and encode_spans.
EncodedConversation encode_conversation(std::span<const Message> messages, const ConversationOptions& options,
                                        const Tokenizer& tokenizer, std::string_view origin, size_t num_untrained = 0);

// The tokens after which the assistant is to write; they end with A </think>, A <think> or a task's token. Refuses
// (kInvalidArgument) messages after which the assistant is not asked for anything.
std::vector<int32_t> encode_prompt(std::span<const Message> messages, const ConversationOptions& options,
                                   const Tokenizer& tokenizer, std::string_view origin);

// The part of a conversation that is one example of training: its first messages, the first of them untrained.
struct ConversationPart {
  size_t num_messages = 0, num_untrained = 0;
};

// The examples that a conversation makes. One, the whole, but in thinking mode where reasoning of earlier turns is
// dropped from later ones: there every trained assistant message makes an example of its own, which ends with it and
// trains it alone, for its reasoning is never seen by the next (post-training.md 1.8).
std::vector<ConversationPart> conversation_parts(std::span<const Message> messages, const ConversationOptions& options,
                                                 size_t num_untrained = 0);

}  // namespace temper::data
