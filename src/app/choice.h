// Options that take one of a few words, shown as "fp32|bf16" in the help.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

namespace temper::app {

// Value: Word, or optional of it. value must outlive the parse.
template <class Word, class Value>
CLI::Option* add_choice(CLI::App& command, const std::string& name, Value& value, const std::string& help,
                        const std::vector<std::pair<std::string, Word>>& words) {
  std::string listed;
  for (const auto& [word, meaning] : words) listed += (listed.empty() ? "" : "|") + word;
  // CLI11's own transformer prints the values of an enum, too, in help and in errors.
  const auto to_number = [words, listed](std::string& text) -> std::string {
    for (const auto& [word, meaning] : words) {
      if (word != text) continue;
      text = std::to_string(static_cast<int>(meaning));
      return "";
    }
    return "\"" + text + "\" is none of " + listed;
  };
  return command.add_option(name, value, help)->transform(CLI::Validator(to_number, ""))->type_name(listed);
}

}  // namespace temper::app
