// One line of a JSONL file, or one text file, as a record. JSONL is UTF-8, an object a line, blank lines skipped.
//
//   {"messages": [{"role", "content", "reasoning_content"?, "wo_eos"?}, ...]}
//   {"prompt": ..., "completion": ...}      both strings, or both lists of messages
//   {"text": ...}
// and in each, optional: "weight" (>= 0, 1 if absent), "id", "source". Other keys are not looked at, except those that
// would change what is rendered and are refused by name (kUnsupported): tools, tool_calls, response_format, task, and
// content in parts. A .txt or .md file is one text record: its whole contents.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/conversation.h"

namespace temper::data {

enum class RecordKind : uint8_t { kMessages, kPromptCompletion, kText };

struct Record {
  RecordKind kind = RecordKind::kText;
  std::vector<Message> messages;   // kMessages; or prompt and completion when they are lists of messages
  size_t num_prompt_messages = 0;  // how many of them are the prompt
  std::string prompt, completion;  // when they are strings
  std::string text;
  float weight = 1;
  std::string id, source;
  std::string origin;  // "file:line", for messages to the user
};

// Calls `visit` on each record of the file, in order. Errors begin with "file:line:column" (line and byte column from
// 1). Refuses: kNotFound, kIo; kUnsupported, an extension other than .jsonl, .txt and .md, and the keys above;
// kCorrupt, a line that is not a JSON object or not UTF-8; kInvalidArgument, a record of no kind, or a field of the
// wrong type.
void for_each_record(const std::filesystem::path& path, const std::function<void(Record&&)>& visit);

// The record as a conversation; prompt and completion strings become a user and an assistant message. Refuses
// (kInvalidArgument) a text record.
std::vector<Message> record_messages(const Record& record);

}  // namespace temper::data
