#include "data/record_tools.h"

#include "data/unseen.h"

namespace temper::data {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

// Reads one call; a problem is described, not thrown.
bool read_call(element value, ToolCall& call, std::string& problem) {
  object outer;
  if (value.get(outer)) return problem = "a call is not an object", false;
  object function = outer;
  if (const auto inner = RecordFields::member(outer, "function"); inner && inner->get(function))
    return problem = "\"function\" of a call is not an object", false;
  std::string_view name;
  if (function["name"].get(name) || name.empty()) return problem = "a call has no \"name\"", false;
  const auto arguments = RecordFields::member(function, "arguments");
  if (!arguments) return problem = fmt::format("the call of \"{}\" has no \"arguments\"", name), false;
  std::string_view text;
  call = {RecordFields::label(outer, "id"), std::string(name),
          arguments->get(text) ? simdjson::minify(*arguments) : std::string(text)};
  return true;
}

}  // namespace

std::string read_tools(element value, const RecordFields& fields, simdjson::dom::parser& parser) {
  std::string_view text;
  if (!value.get(text) && text.find_first_not_of(" \t\r\n") == text.npos) return "";
  const auto inner = RecordFields::unwrap(value, parser);
  if (!inner) fields.invalid("\"tools\" is a text that is not JSON: {}", excerpt(text));
  std::string out;
  int64_t index = 0;
  for (const element entry : fields.as_list(*inner, "tools")) {
    const object tool = fields.as_object(entry, fmt::format("tool {}", index));
    const auto wrapped = RecordFields::member(tool, "function");
    const object function = wrapped ? fields.as_object(*wrapped, fmt::format("\"function\" of tool {}", index)) : tool;
    std::string_view name;
    if (function["name"].get(name) || name.empty()) fields.invalid("tool {} has no \"name\"", index);
    out += index++ == 0 ? "[" : ",";
    out += wrapped ? simdjson::minify(tool) : R"({"type":"function","function":)" + simdjson::minify(tool) + "}";
  }
  return out.empty() ? out : out + "]";
}

std::optional<std::vector<ToolCall>> read_tool_calls(element value, const RecordFields& fields,
                                                     simdjson::dom::parser& parser, std::string& problem) {
  const auto inner = RecordFields::unwrap(value, parser);
  if (!inner) {
    problem = fmt::format("the text of a call is not JSON: {}", excerpt(fields.as_string(value, "call")));
    return std::nullopt;
  }
  std::vector<ToolCall> calls;
  array list;
  if (inner->get(list)) {
    if (!read_call(*inner, calls.emplace_back(), problem)) return std::nullopt;
    return calls;
  }
  for (const element entry : list) {
    if (!read_call(entry, calls.emplace_back(), problem)) return std::nullopt;
  }
  return calls;
}

}  // namespace temper::data
