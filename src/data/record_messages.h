// Messages of a record, as OpenAI and V4 spell them, into Record::messages.
#pragma once

#include <string>
#include <string_view>

#include "data/record_fields.h"
#include "data/records.h"

namespace temper::data {

// Reads into one record. Complaints begin with the record's origin; `inner_parser` keeps JSON texts inside of strings.
class MessageReader {
 public:
  MessageReader(const RecordOptions& options, simdjson::dom::parser& inner_parser, Record& record)
      : options_(options), inner_parser_(inner_parser), fields_(record.origin), record_(record) {}

  // Appends a message; the reference holds until the next one.
  Message& add(std::string_view role, std::string_view content);

  // Appends the messages of a list, which is the field `what`. Refuses an empty one.
  void read_list(simdjson::dom::element value, std::string_view what);

  // Appends one message with all its fields; `index` names it in complaints.
  void read_message(simdjson::dom::object source, size_t index);

  // Refuses fields that would change what is trained; remarks unknown ones.
  void check_fields(simdjson::dom::object source, size_t index);

  // Adds calls of tools to a message. Refuses a broken call, unless remarks are collected.
  void add_calls(Message& message, simdjson::dom::element value, size_t index);

  // JSON text of a response format: an object, or a string that is taken as it is.
  std::string read_response_format(simdjson::dom::element value);

  // Collects a remark, if remarks are asked for.
  void remark(RemarkKind kind, std::string text);

  const RecordFields& fields() const { return fields_; }

 private:
  std::string read_content(simdjson::dom::element content, size_t index);

  const RecordOptions& options_;
  simdjson::dom::parser& inner_parser_;
  RecordFields fields_;
  Record& record_;
};

// Splits an assistant's content that begins with <think>...</think>, as records.h says; others are left alone.
void split_reasoning(Message& message);

}  // namespace temper::data
