// Training data as records: one line of a JSONL file, one element of a JSON list, or one text file.
//
// Formats: record_formats.h; fields: docs/data.md. Whatever the format, a conversation becomes messages as
// data/conversation.h takes them, so that nothing behind this header knows where the data came from:
//   - tools, response_format and system at the top of a record go to its first system message, made if there is none
//   - content in parts: texts joined by a blank line, any other part becomes "[Unsupported TYPE]"
//   - an assistant's content that begins with <think>...</think> is split into reasoning_content and content, the line
//     breaks around the tags dropped, unless the message has reasoning_content
//   - ShareGPT: function_call becomes a tool call of the assistant, of the message before where that is the
//     assistant's; observation becomes a tool message
//   - Alpaca: history as turns, then instruction + newline + input, then output
// Unknown fields are passed over, but for those that would change what is trained, which are refused by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/conversation.h"
#include "data/record_formats.h"

namespace temper::data {

enum class RecordKind : uint8_t { kMessages, kPromptCompletion, kText };

// Something in a record that reading passes over or stumbles on; for a linter.
enum class RemarkKind : uint8_t {
  kUnknownField,     // of a message, or of the record where its name resembles one that is read
  kUnsupportedPart,  // a part of the content that is not text
  kBrokenCall,       // a call of a tool that is not JSON of a name and arguments
};
struct Remark {
  RemarkKind kind;
  std::string text;
};

struct Record {
  RecordKind kind = RecordKind::kText;
  RecordFormat format = RecordFormat::kText;
  std::vector<Message> messages;   // kMessages; or prompt and completion when they are lists of messages
  size_t num_prompt_messages = 0;  // how many of them are the prompt
  std::string prompt, completion;  // when they are strings
  std::string text;
  float weight = 1;
  std::string id, source;
  std::string origin;           // "file:line", for messages to the user
  std::vector<Remark> remarks;  // if they were asked for
};

struct RecordOptions {
  RecordFormat format = RecordFormat::kAuto;
  bool with_remarks = false;  // collect them; a broken call is then no error
};

// Calls `visit` on each record of the file, in order. Errors begin with "file:line:column" (line and byte column from
// 1). Refuses: kNotFound, kIo; kUnsupported, an extension that record_file.h does not list, and fields that would
// change what is trained; kCorrupt, what is not a JSON object or not UTF-8; kInvalidArgument, a record of no format or
// of several, or a field of the wrong type.
using VisitRecord = std::function<void(Record&&)>;
void for_each_record(const std::filesystem::path& path, const RecordOptions& options, const VisitRecord& visit);
void for_each_record(const std::filesystem::path& path, const VisitRecord& visit);

// The record of this number, from 1. Refuses what for_each_record refuses, and (kInvalidArgument) a number that the
// file does not have; the records before it are not looked at.
Record read_record(const std::filesystem::path& path, const RecordOptions& options, int64_t number);

// The record as a conversation; prompt and completion strings become a user and an assistant message. Refuses
// (kInvalidArgument) a text record.
std::vector<Message> record_messages(const Record& record);

}  // namespace temper::data
