#include "data/record_parser.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/nearest.h"
#include "data/byte_alphabet.h"
#include "data/record_fields.h"
#include "data/record_messages.h"
#include "data/record_tools.h"

namespace temper::data {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

// Notes where the first mistake in a text of JSON is and keeps nothing else.
struct MistakeFinder : nlohmann::detail::json_sax_acceptor<nlohmann::json> {
  size_t byte = 1;  // from 1
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    byte = std::max<size_t>(position, 1);
    return false;
  }
};

// Byte column, from 1, of the first mistake. simdjson does not say; a second parser does.
size_t find_mistake(std::string_view text) {
  MistakeFinder finder;
  nlohmann::json::sax_parse(text, &finder);
  return finder.byte;
}

// Fields of a record that every kind of conversation may have.
constexpr std::string_view kRecordFields[] = {"tools", "response_format", "system", "weight", "history"};

std::string_view role_of_speaker(std::string_view from) {
  if (from == "human") return "user";
  if (from == "gpt") return "assistant";
  if (from == "observation") return "tool";
  return from;  // the names of roles themselves, and unknown ones, which rendering refuses
}

// Turns one parsed object into a record.
class RecordBuilder {
 public:
  RecordBuilder(const RecordOptions& options, simdjson::dom::parser& inner_parser, Record& record)
      : options_(options),
        inner_parser_(inner_parser),
        fields_(record.origin),
        reader_(options, inner_parser, record),
        record_(record) {}

  void build(object line) {
    std::vector<std::string_view> names;
    for (const auto field : line) {
      if (!field.value.is_null()) names.push_back(field.key);
    }
    record_.format = detect_format(names, options_.format, record_.origin);
    switch (record_.format) {
      case RecordFormat::kMessages:
        reader_.read_list(line["messages"], "messages");
        break;
      case RecordFormat::kShareGpt:
        read_conversations(line["conversations"]);
        break;
      case RecordFormat::kAlpaca:
        read_alpaca(line);
        break;
      case RecordFormat::kPromptCompletion:
        read_prompt_completion(line, *find_prompt_fields(names));
        break;
      default:
        record_.text = fields_.as_string(line["text"], "text");
    }
    if (record_.format != RecordFormat::kText) finish_conversation(line, names);
    read_weight(line);
    record_.id = RecordFields::label(line, "id");
    record_.source = RecordFields::label(line, "source");
  }

 private:
  // ShareGPT: [{"from", "value"}, ...]; lists of {"role", "content"} are found under the same name.
  void read_conversations(element value) {
    record_.kind = RecordKind::kMessages;
    const array list = fields_.as_list(value, "conversations");
    if (list.size() == 0) fields_.invalid("\"conversations\" is empty");
    size_t index = 0;
    for (const element entry : list) {
      const object turn = fields_.as_object(entry, fmt::format("turn {}", index));
      if (const auto from = RecordFields::member(turn, "from")) {
        const auto said = RecordFields::member(turn, "value");
        if (!said) fields_.invalid("turn {} has no \"value\"", index);
        reader_.check_fields(turn, index);
        read_turn(fields_.as_string(*from, "from"), *said, index);
      } else {
        reader_.read_message(turn, index);
      }
      ++index;
    }
  }

  void read_turn(std::string_view from, element value, size_t index) {
    if (from == "function_call") {
      // What the assistant says before a call, and several calls at once, are one message of the model.
      const bool continues = !record_.messages.empty() && record_.messages.back().role == "assistant";
      reader_.add_calls(continues ? record_.messages.back() : reader_.add("assistant", ""), value, index);
      return;
    }
    split_reasoning(reader_.add(role_of_speaker(from), fields_.as_string(value, "value")));
  }

  void read_alpaca(object line) {
    record_.kind = RecordKind::kMessages;
    if (const auto history = RecordFields::member(line, "history")) {
      for (const element turn : fields_.as_list(*history, "history")) {
        const array pair = fields_.as_list(turn, "history");
        if (pair.size() != 2) fields_.invalid("a turn of \"history\" has {} texts, not 2", pair.size());
        reader_.add("user", fields_.as_string(pair.at(0), "history"));
        split_reasoning(reader_.add("assistant", fields_.as_string(pair.at(1), "history")));
      }
    }
    std::string question = fields_.string_or_empty(line, "instruction");
    const std::string input = fields_.string_or_empty(line, "input");
    if (!input.empty()) question += (question.empty() ? "" : "\n") + input;
    reader_.add("user", question);
    split_reasoning(reader_.add("assistant", fields_.string_or_empty(line, "output")));
  }

  void read_prompt_completion(object line, const FieldPair& names) {
    const element prompt = line[names[0]], completion = line[names[1]];
    if (prompt.is_string() != completion.is_string())
      fields_.invalid("\"{}\" and \"{}\" must both be strings or both be lists of messages", names[0], names[1]);
    if (prompt.is_string()) {
      record_.prompt = fields_.as_string(prompt, names[0]);
      record_.completion = fields_.as_string(completion, names[1]);
    } else {
      reader_.read_list(prompt, names[0]);
      record_.num_prompt_messages = record_.messages.size();
      reader_.read_list(completion, names[1]);
    }
    record_.kind = RecordKind::kPromptCompletion;
  }

  // What stands at the record's top and belongs to its system message.
  void finish_conversation(object line, const std::vector<std::string_view>& names) {
    if (RecordFields::member(line, "functions")) fields_.unsupported("\"functions\" is not read: write it as tools");
    for (const std::string_view name : options_.with_remarks ? names : std::vector<std::string_view>()) {
      if (const auto meant = nearest_name(name, kRecordFields); !meant.empty() && meant != name)
        reader_.remark(RemarkKind::kUnknownField,
                       fmt::format("the record has the field \"{}\"; is it \"{}\"?", name, meant));
    }
    const std::string system = fields_.string_or_empty(line, "system");
    std::string tools, response_format;
    if (const auto value = RecordFields::member(line, "tools")) tools = read_tools(*value, fields_, inner_parser_);
    if (const auto value = RecordFields::member(line, "response_format"); value && !RecordFields::is_empty(*value))
      response_format = reader_.read_response_format(*value);
    if (system.empty() && tools.empty() && response_format.empty()) return;
    if (record_.messages.empty()) record_.messages = record_messages(record_), record_.num_prompt_messages = 1;
    if (record_.messages[0].role != "system") {
      record_.messages.emplace(record_.messages.begin())->role = "system";
      if (record_.kind == RecordKind::kPromptCompletion) ++record_.num_prompt_messages;
    }
    merge("system", system, record_.messages[0].content);
    merge("tools", tools, record_.messages[0].tools);
    merge("response_format", response_format, record_.messages[0].response_format);
  }

  void merge(std::string_view what, const std::string& from_record, std::string& of_message) const {
    if (from_record.empty()) return;
    if (!of_message.empty()) fields_.invalid("both the record and its system message have \"{}\"", what);
    of_message = from_record;
  }

  void read_weight(object line) {
    const auto value = RecordFields::member(line, "weight");
    if (!value) return;
    double weight = 0;
    if (value->get(weight) || !(weight >= 0) || weight > 1e6)
      fields_.invalid("\"weight\" is not a number from 0 to 1000000");
    record_.weight = static_cast<float>(weight);
  }

  const RecordOptions& options_;
  simdjson::dom::parser& inner_parser_;
  RecordFields fields_;
  MessageReader reader_;
  Record& record_;
};

}  // namespace

struct RecordParser::Memory {
  simdjson::dom::parser parser, inner_parser;
};

RecordParser::RecordParser(const RecordOptions& options) : options_(options), memory_(std::make_unique<Memory>()) {}
RecordParser::RecordParser(RecordParser&&) noexcept = default;
RecordParser& RecordParser::operator=(RecordParser&&) noexcept = default;
RecordParser::~RecordParser() = default;

Record RecordParser::parse(std::string_view json, const std::string& origin) {
  element value;
  if (const auto error = memory_->parser.parse(json.data(), json.size()).get(value))
    fail(ErrorCode::kCorrupt, "{}:{}: the record is not JSON: {}", origin, find_mistake(json),
         simdjson::error_message(error));
  object object_of_record;
  if (value.get(object_of_record)) fail(ErrorCode::kCorrupt, "{}:1: the record is not a JSON object", origin);
  Record record;
  record.origin = origin;
  RecordBuilder(options_, memory_->inner_parser, record).build(object_of_record);
  return record;
}

Record parse_plain_text(std::string_view text, const std::string& name) {
  if (!simdjson::validate_utf8(text.data(), text.size())) {
    size_t at = 0, line = 1, line_begin = 0;
    while (const int64_t length = utf8_length(text.substr(at))) {
      at += static_cast<size_t>(length);
      if (text[at - 1] == '\n') ++line, line_begin = at;
    }
    fail(ErrorCode::kCorrupt, "{}:{}:{}: the text is not UTF-8", name, line, at - line_begin + 1);
  }
  Record record;
  record.text = text;
  record.origin = name + ":1";
  return record;
}

}  // namespace temper::data
