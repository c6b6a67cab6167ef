// The conversation format read back: what an assistant wrote, and whole conversations.
//
// Source: architecture page 11.4 (parsing). Special tokens are known by their spans, so text that only looks like one
// is content; for plain text of a program that makes no difference, use split_special, for tokens decode_spans.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/conversation.h"

namespace temper::data {

struct ParsedCompletion {
  Message message;      // of the assistant; arguments of calls are JSON as Python writes it
  std::string problem;  // empty: well formed; else what is broken at which byte, and `message` has what came before it
};

// What the assistant wrote after A </think> or a task's token (kChat) or after A <think> (kThinking), with its E.
// Well formed is: in thinking mode reasoning and </think>; content; perhaps calls; E and nothing after it; no other
// special token; parameters that are not strings are JSON; no parameter twice.
ParsedCompletion parse_completion(std::span<const ConversationSpan> completion, ConversationMode mode);

struct ParsedConversation {
  std::vector<Message> messages;
  ConversationOptions options;  // with which render_conversation writes the same text again
};

// The messages of a rendered conversation that begins with B. Results of tools stay text of the user's message that
// carries them; neighbouring messages between which nothing is written are one; ids of calls are not in the text. Tools
// and response formats are found by the blocks of prose, and a message of U that has one is the developer's.
// On success rendering the messages again gives these spans. Refuses, beginning with `origin`: kCorrupt, what
// render_conversation would not write; kInvalidArgument, what it refuses.
ParsedConversation parse_conversation(std::span<const ConversationSpan> spans, const ProseBlocks& prose,
                                      std::string_view origin);

}  // namespace temper::data
