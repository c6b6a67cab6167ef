#include "data/lint_tools.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/unseen.h"

namespace temper::data {
namespace {

using nlohmann::json;

json parse(const std::string& text) { return json::parse(text, nullptr, /*allow_exceptions=*/false); }

// A member of an object; null if there is none or `value` is no object.
const json& member(const json& value, const char* key) {
  static const json kNothing;
  const auto found = value.find(key);
  return value.is_object() && found != value.end() ? *found : kNothing;
}

// By name, the schema of the parameters of every tool that the messages declare.
std::map<std::string, json> declared_tools(std::span<const Message> messages) {
  std::map<std::string, json> out;
  for (const Message& message : messages) {
    if (message.tools.empty()) continue;
    for (const json& tool : parse(message.tools)) {
      const json& function = member(tool, "function").is_object() ? tool.at("function") : tool;
      if (member(function, "name").is_string()) out[function.at("name")] = member(function, "parameters");
    }
  }
  return out;
}

// Whether a value is of a type of JSON Schema; types that are not known say nothing.
bool is_of_type(const json& value, const std::string& type) {
  if (type == "string") return value.is_string();
  if (type == "number") return value.is_number();
  if (type == "integer")
    return value.is_number_integer() || (value.is_number_float() && std::floor(value.get<double>()) == value);
  if (type == "boolean") return value.is_boolean();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  return true;
}

class CallChecker {
 public:
  CallChecker(std::span<const Message> messages, LintFindings& findings)
      : tools_(declared_tools(messages)), findings_(findings) {}

  void check(const ToolCall& call, size_t index) const {
    if (call.name.empty()) return;  // stands for a call that could not be read: remarked already
    const json arguments = parse(call.arguments);
    if (!arguments.is_object())
      findings_.add(LintRule::kBrokenToolCall,
                    fmt::format("message {} calls \"{}\" with arguments that are not a JSON object ({})", index,
                                call.name, excerpt(call.arguments)));
    const auto tool = tools_.find(call.name);
    if (tool == tools_.end()) {
      findings_.add(LintRule::kUnknownTool,
                    fmt::format("message {} calls \"{}\", {}", index, call.name,
                                tools_.empty() ? "but no tools are declared" : "which is not a declared tool"));
      return;
    }
    if (arguments.is_object()) check_arguments(call.name, arguments, tool->second, index);
  }

 private:
  void check_arguments(const std::string& tool, const json& arguments, const json& schema, size_t index) const {
    for (const json& key : member(schema, "required")) {
      if (key.is_string() && !arguments.contains(key.get<std::string>()))
        findings_.add(LintRule::kToolArguments,
                      fmt::format("message {} calls \"{}\" without its required argument {} ({})", index, tool,
                                  key.dump(), excerpt(arguments.dump())));
    }
    const json& properties = member(schema, "properties");
    for (const auto& [key, value] : arguments.items()) {
      const json& property = member(properties, key.c_str());
      if (property.is_null() && member(schema, "additionalProperties") == false)
        findings_.add(LintRule::kToolArguments,
                      fmt::format("message {} calls \"{}\" with \"{}\", which it does not take", index, tool, key));
      const json& type = member(property, "type");
      const bool wrong_type = type.is_string() && !is_of_type(value, type.get<std::string>());
      const json& choices = member(property, "enum");
      const bool wrong_choice = choices.is_array() && std::find(choices.begin(), choices.end(), value) == choices.end();
      if (wrong_type || wrong_choice)
        findings_.add(LintRule::kToolArguments,
                      fmt::format("message {} calls \"{}\" with \"{}\" = {}, which is not {}", index, tool, key,
                                  excerpt(value.dump()), wrong_type ? "of type " + type.dump() : "in its enum"));
    }
  }

  std::map<std::string, json> tools_;
  LintFindings& findings_;
};

// Follows calls to their results.
class Ledger {
 public:
  explicit Ledger(LintFindings& findings) : findings_(findings) {}

  void call(const ToolCall& call) { open_.push_back(call); }

  void result(const Message& message, size_t index) {
    const bool has_ids = !message.tool_call_id.empty() && !open_.empty() && !open_[0].id.empty();
    const auto found = has_ids ? std::find_if(open_.begin(), open_.end(),
                                              [&](const ToolCall& call) { return call.id == message.tool_call_id; })
                               : open_.begin();
    if (found == open_.end()) {
      findings_.add(LintRule::kResultWithoutCall,
                    fmt::format("message {} is the result of a tool, but {} ({})", index,
                                has_ids ? "its id is of no open call" : "no call is open", excerpt(message.content)));
    } else {
      open_.erase(found);
    }
  }

  // The conversation goes on: what was called will not come back.
  void close(size_t index) {
    for (const ToolCall& call : open_)
      findings_.add(LintRule::kCallWithoutResult,
                    fmt::format("the call of \"{}\" has no result before message {}", call.name, index));
    open_.clear();
  }

 private:
  std::vector<ToolCall> open_;
  LintFindings& findings_;
};

}  // namespace

void lint_tools(std::span<const Message> messages, LintFindings& findings) {
  const bool has_tools = std::any_of(messages.begin(), messages.end(), [](const Message& message) {
    return !message.tool_calls.empty() || message.role == "tool";
  });
  if (!has_tools) return;
  const CallChecker checker(messages, findings);
  Ledger ledger(findings);
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == "tool") {
      ledger.result(messages[i], i);
      continue;
    }
    ledger.close(i);
    for (const ToolCall& call : messages[i].tool_calls) {
      checker.check(call, i);
      ledger.call(call);
    }
  }
}

}  // namespace temper::data
