#include "data/record_messages.h"

#include <algorithm>

#include "data/record_tools.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

// Fields of a message that are read, or that say nothing about what is trained.
constexpr std::string_view kMessageFields[] = {"role",
                                               "content",
                                               "reasoning_content",
                                               "tools",
                                               "response_format",
                                               "tool_calls",
                                               "tool_call_id",
                                               "task",
                                               "wo_eos",
                                               "name",
                                               "id",
                                               "from",
                                               "value"};
// Fields that would change what is trained if they were read.
struct Refused {
  std::string_view field, remedy;
};
constexpr Refused kRefusedInMessages[] = {
    {"reasoning", "rename it to reasoning_content"},
    {"thinking", "rename it to reasoning_content"},
    {"function_call", "write it as tool_calls"},
    {"weight", "a single message cannot be weighted; give the record a weight, or split it"},
    {"train", "a single message cannot be left out; split the record"},
    {"loss", "a single message cannot be left out; split the record"},
};

}  // namespace

void MessageReader::remark(RemarkKind kind, std::string text) {
  if (options_.with_remarks) record_.remarks.push_back({kind, std::move(text)});
}

Message& MessageReader::add(std::string_view role, std::string_view content) {
  Message& message = record_.messages.emplace_back();
  message.role = role;
  message.content = content;
  return message;
}

void MessageReader::read_list(element value, std::string_view what) {
  record_.kind = RecordKind::kMessages;
  const array list = fields_.as_list(value, what);
  if (list.size() == 0) fields_.invalid("\"{}\" is empty", what);
  for (const element entry : list) {
    const size_t index = record_.messages.size();
    read_message(fields_.as_object(entry, fmt::format("message {}", index)), index);
  }
}

void MessageReader::read_message(object source, size_t index) {
  const auto role = RecordFields::member(source, "role");
  if (!role) fields_.invalid("message {} has no \"role\"", index);
  check_fields(source, index);
  Message& message = add(fields_.as_string(*role, "role"), "");
  if (const auto content = RecordFields::member(source, "content")) {
    message.content = read_content(*content, index);
  } else if (message.role != "assistant" && message.role != "system") {
    fields_.invalid("message {} has no \"content\"", index);
  }
  message.reasoning_content = fields_.string_or_empty(source, "reasoning_content");
  message.tool_call_id = fields_.string_or_empty(source, "tool_call_id");
  message.task = fields_.string_or_empty(source, "task");
  if (const auto tools = RecordFields::member(source, "tools"))
    message.tools = read_tools(*tools, fields_, inner_parser_);
  if (const auto format = RecordFields::member(source, "response_format"))
    message.response_format = read_response_format(*format);
  if (const auto calls = RecordFields::member(source, "tool_calls")) add_calls(message, *calls, index);
  if (const auto without_eos = RecordFields::member(source, "wo_eos")) {
    if (without_eos->get(message.without_eos)) fields_.invalid("\"wo_eos\" of message {} is not true or false", index);
  }
  split_reasoning(message);
}

void MessageReader::check_fields(object source, size_t index) {
  const bool has_reasoning = RecordFields::member(source, "reasoning_content").has_value();
  for (const auto field : source) {
    const auto* refused = std::find_if(std::begin(kRefusedInMessages), std::end(kRefusedInMessages),
                                       [&](const Refused& one) { return one.field == field.key; });
    const bool known =
        std::find(std::begin(kMessageFields), std::end(kMessageFields), field.key) != std::end(kMessageFields);
    if (known || RecordFields::is_empty(field.value)) continue;
    if (refused == std::end(kRefusedInMessages)) {
      remark(RemarkKind::kUnknownField, fmt::format("message {} has the field \"{}\"", index, field.key));
      continue;
    }
    const bool repeats = has_reasoning && refused->remedy == kRefusedInMessages[0].remedy;
    const std::string value = simdjson::minify(field.value);
    if (repeats || value == "1" || value == "1.0" || value == "true") continue;
    fields_.unsupported("message {} has \"{}\", which is not read: {}", index, field.key, refused->remedy);
  }
}

std::string MessageReader::read_content(element content, size_t index) {
  std::string_view text;
  if (!content.get(text)) return std::string(text);
  array parts;
  if (content.get(parts)) fields_.invalid("\"content\" is not a string (message {})", index);
  std::string out;
  bool is_first = true;
  for (const element part : parts) {
    if (!is_first) out += "\n\n";
    is_first = false;
    if (!part.get(text)) {
      out += text;
      continue;
    }
    const object typed = fields_.as_object(part, fmt::format("a part of the content of message {}", index));
    const std::string type = fields_.string_or_empty(typed, "type");
    if (type == "text") {
      out += fields_.string_or_empty(typed, "text");
    } else {
      out += fmt::format("[Unsupported {}]", type);
      remark(RemarkKind::kUnsupportedPart, fmt::format("message {} has a part of type \"{}\"", index, type));
    }
  }
  return out;
}

std::string MessageReader::read_response_format(element value) {
  std::string_view text;
  const bool is_text = !value.get(text);
  if (!RecordFields::unwrap(value, inner_parser_)) fields_.invalid("\"response_format\" is a text that is not JSON");
  return is_text ? std::string(text) : simdjson::minify(value);
}

void MessageReader::add_calls(Message& message, element value, size_t index) {
  std::string problem;
  auto calls = read_tool_calls(value, fields_, inner_parser_, problem);
  if (!calls) {
    if (!options_.with_remarks) fields_.invalid("message {}: {}", index, problem);
    remark(RemarkKind::kBrokenCall, fmt::format("message {}: {}", index, problem));
    calls = {{"", "", "{}"}};  // stands for it, so that the rest of the record can be looked at
  }
  for (ToolCall& call : *calls) message.tool_calls.push_back(std::move(call));
}

void split_reasoning(Message& message) {
  const std::string_view content = message.content;
  const size_t begin = content.find_first_not_of(" \t\r\n");
  if (message.role != "assistant" || !message.reasoning_content.empty() || begin == content.npos) return;
  if (!content.substr(begin).starts_with(kThink)) return;
  const size_t end = content.find(kEndThink, begin);
  if (end == content.npos) return;
  constexpr std::string_view kLineBreaks = "\r\n";
  std::string_view reasoning = content.substr(begin + kThink.size(), end - begin - kThink.size());
  reasoning.remove_prefix(std::min(reasoning.find_first_not_of(kLineBreaks), reasoning.size()));
  reasoning = reasoning.substr(0, reasoning.find_last_not_of(kLineBreaks) + 1);
  std::string_view answer = content.substr(end + kEndThink.size());
  answer.remove_prefix(std::min(answer.find_first_not_of(kLineBreaks), answer.size()));
  message.reasoning_content = reasoning;
  message.content = std::string(answer);  // a copy: answer points into content
}

}  // namespace temper::data
