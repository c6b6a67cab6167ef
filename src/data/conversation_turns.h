// Messages as the conversation format writes them: checked, tool results merged into users' messages, old developer
// messages left out (architecture page 11.2, "Preparation").
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/conversation.h"

namespace temper::data {

struct Turn {
  size_t index = 0;             // of its first message in the conversation
  std::string_view role;        // system | user | assistant | developer | latest_reminder
  const Message* message;       // its first message
  std::string content;          // of all its messages, with the results of tools
  std::string tool_schemas;     // a line of JSON for each tool; empty = no tools
  std::string response_schema;  // JSON; empty = no response format
  std::string_view task;        // empty = none
  bool asks() const { return role == "user" || role == "developer"; }
};

struct Turns {
  std::vector<Turn> turns;
  bool drops_thinking = false;  // of turns before the last question
  int64_t last_question = -1;   // index in turns of the last user or developer; -1 = none
  bool awaits_answer = false;   // the assistant is asked for the next message
};

// Refuses what render_conversation refuses, but for empty answers, arguments and missing blocks of prose. The views are
// into `messages`.
Turns make_turns(std::span<const Message> messages, const ConversationOptions& options, std::string_view origin);

// Whether a list of tools (Message::tools) has any; false for text that is not JSON.
bool has_tools(const Message& message);

}  // namespace temper::data
