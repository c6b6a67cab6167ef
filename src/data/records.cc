#include "data/records.h"

#include <simdjson.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "data/byte_alphabet.h"

namespace temper::data {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Byte column, from 1, of the first mistake in a line of JSON. simdjson does not say; a second parser does, which keeps
// nothing of what it reads.
size_t find_mistake(std::string_view line) {
  using nlohmann::json;
  try {
    const json nothing = json::parse(line, [](int, json::parse_event_t, json&) { return false; });
  } catch (const json::parse_error& error) {
    return std::max<size_t>(error.byte, 1);
  }
  return 1;
}

// Turns one parsed line into a record; complaints begin with the line's origin.
class RecordReader {
 public:
  RecordReader(std::string origin, Record& record) : origin_(std::move(origin)), record_(record) {
    record_.origin = origin_;
  }

  void read(object line) {
    refuse_unsupported(line, "the record");
    if (const auto messages = member(line, "messages")) {
      record_.kind = RecordKind::kMessages;
      read_messages(*messages, "messages");
    } else if (member(line, "prompt") && member(line, "completion")) {
      record_.kind = RecordKind::kPromptCompletion;
      read_prompt_completion(*member(line, "prompt"), *member(line, "completion"));
    } else if (const auto text = member(line, "text")) {
      record_.kind = RecordKind::kText;
      record_.text = as_string(*text, "text");
    } else {
      invalid("the record lacks \"messages\", \"prompt\" and \"completion\", or \"text\"");
    }
    read_weight(line);
    record_.id = label(line, "id");
    record_.source = label(line, "source");
  }

 private:
  template <class... Args>
  [[noreturn]] void invalid(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kInvalidArgument, "{}:1: {}", origin_, fmt::format(format, std::forward<Args>(args)...));
  }

  // Absent and null are the same.
  static std::optional<element> member(object parent, std::string_view key) {
    element out;
    if (parent[key].get(out) || out.is_null()) return std::nullopt;
    return out;
  }

  std::string_view as_string(element value, std::string_view what) const {
    std::string_view out;
    if (value.get(out)) invalid("\"{}\" is not a string", what);
    return out;
  }

  // A string or a number, as text; empty if absent.
  std::string label(object line, std::string_view key) const {
    const auto value = member(line, key);
    if (!value) return "";
    std::string_view text;
    return value->get(text) ? simdjson::minify(*value) : std::string(text);
  }

  void refuse_unsupported(object holder, std::string_view what) const {
    for (const std::string_view key : {"tools", "tool_calls", "response_format", "task"}) {
      const auto value = member(holder, key);
      array list;
      if (!value || (value->get(list) == simdjson::SUCCESS && list.size() == 0)) continue;
      fail(ErrorCode::kUnsupported, "{}:1: {} has \"{}\", which is not rendered yet; remove it or leave the record out",
           origin_, what, key);
    }
  }

  void read_messages(element value, std::string_view what) {
    array list;
    if (value.get(list)) invalid("\"{}\" is not a list of messages", what);
    if (list.size() == 0) invalid("\"{}\" is empty", what);
    for (const element entry : list) {
      const size_t index = record_.messages.size();
      object message;
      if (entry.get(message)) invalid("message {} is not an object", index);
      read_message(message, index);
    }
  }

  void read_message(object source, size_t index) {
    refuse_unsupported(source, fmt::format("message {}", index));
    Message message;
    const auto role = member(source, "role");
    if (!role) invalid("message {} has no \"role\"", index);
    message.role = as_string(*role, "role");
    if (const auto content = member(source, "content")) {
      if (content->is_array())
        fail(ErrorCode::kUnsupported, "{}:1: message {} has content in parts, which is not rendered yet", origin_,
             index);
      message.content = as_string(*content, "content");
    } else if (message.role != "assistant") {
      invalid("message {} has no \"content\"", index);
    }
    if (const auto reasoning = member(source, "reasoning_content"))
      message.reasoning_content = as_string(*reasoning, "reasoning_content");
    if (const auto without_eos = member(source, "wo_eos")) {
      if (without_eos->get(message.without_eos)) invalid("\"wo_eos\" of message {} is not true or false", index);
    }
    record_.messages.push_back(std::move(message));
  }

  void read_prompt_completion(element prompt, element completion) {
    if (prompt.is_string() != completion.is_string())
      invalid("\"prompt\" and \"completion\" must both be strings or both be lists of messages");
    if (prompt.is_string()) {
      record_.prompt = as_string(prompt, "prompt");
      record_.completion = as_string(completion, "completion");
      return;
    }
    read_messages(prompt, "prompt");
    record_.num_prompt_messages = record_.messages.size();
    read_messages(completion, "completion");
  }

  void read_weight(object line) {
    const auto value = member(line, "weight");
    if (!value) return;
    double weight = 0;
    if (value->get(weight) || !(weight >= 0) || weight > 1e6) invalid("\"weight\" is not a number from 0 to 1000000");
    record_.weight = static_cast<float>(weight);
  }

  std::string origin_;
  Record& record_;
};

void read_json_lines(std::string_view contents, const std::string& name, const std::function<void(Record&&)>& visit) {
  simdjson::dom::parser parser;
  int64_t line_number = 0;
  while (!contents.empty()) {
    ++line_number;
    const size_t end = contents.find('\n');
    const std::string_view line = contents.substr(0, end);
    contents.remove_prefix(end == contents.npos ? contents.size() : end + 1);
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const std::string origin = fmt::format("{}:{}", name, line_number);
    element value;
    if (const auto error = parser.parse(line.data(), line.size()).get(value))
      fail(ErrorCode::kCorrupt, "{}:{}: the line is not JSON: {}", origin, find_mistake(line),
           simdjson::error_message(error));
    object object_of_line;
    if (value.get(object_of_line)) fail(ErrorCode::kCorrupt, "{}:1: the line is not a JSON object", origin);
    Record record;
    RecordReader(origin, record).read(object_of_line);
    visit(std::move(record));
  }
}

void read_plain_text(std::string_view contents, const std::string& name, const std::function<void(Record&&)>& visit) {
  if (!simdjson::validate_utf8(contents.data(), contents.size())) {
    size_t at = 0, line = 1, line_begin = 0;
    while (const int64_t length = utf8_length(contents.substr(at))) {
      at += static_cast<size_t>(length);
      if (contents[at - 1] == '\n') ++line, line_begin = at;
    }
    fail(ErrorCode::kCorrupt, "{}:{}:{}: the text is not UTF-8", name, line, at - line_begin + 1);
  }
  Record record;
  record.text = contents;
  record.origin = name + ":1";
  visit(std::move(record));
}

}  // namespace

void for_each_record(const std::filesystem::path& path, const std::function<void(Record&&)>& visit) {
  const std::string extension = path.extension().string();
  const bool is_text = extension == ".txt" || extension == ".md";
  if (!is_text && extension != ".jsonl")
    fail(ErrorCode::kUnsupported, "cannot read data from {}: its name must end in .jsonl, .txt or .md", path.string());
  const MappedFile file(path);
  std::string_view contents(reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size()));
  if (contents.starts_with(kByteOrderMark)) contents.remove_prefix(kByteOrderMark.size());
  (is_text ? read_plain_text : read_json_lines)(contents, path.string(), visit);
}

std::vector<Message> record_messages(const Record& record) {
  if (record.kind == RecordKind::kText)
    fail(ErrorCode::kInvalidArgument, "{}:1: a record of plain text is not a conversation", record.origin);
  if (!record.messages.empty()) return record.messages;
  Message question, answer;
  question.role = "user", question.content = record.prompt;
  answer.role = "assistant", answer.content = record.completion;
  return {question, answer};
}

}  // namespace temper::data
