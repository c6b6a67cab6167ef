// Tools and calls of tools as records spell them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/conversation.h"
#include "data/record_fields.h"

namespace temper::data {

// A list of tools, OpenAI's {"type": "function", "function": {...}} or the bare function objects, or the JSON text of
// such a list, as Message::tools takes it: bare functions are wrapped, keys keep their order. "" for an empty list or
// text. Refuses what is no list of objects with a name. `parser` keeps the inner text.
std::string read_tools(simdjson::dom::element value, const RecordFields& fields, simdjson::dom::parser& parser);

// The calls of one message: a list, or one object, of {"id"?, "function": {"name", "arguments"}} or {"name",
// "arguments"}, or the JSON text of it (ShareGPT's function_call). Arguments are kept as JSON text; a string is taken
// as it is. nullopt: a text that is not JSON, or a call without name or arguments; `problem` then says what is wrong.
std::optional<std::vector<ToolCall>> read_tool_calls(simdjson::dom::element value, const RecordFields& fields,
                                                     simdjson::dom::parser& parser, std::string& problem);

}  // namespace temper::data
