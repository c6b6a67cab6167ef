#include "data/lint_turns.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace temper::data {
namespace {

constexpr std::array<std::string_view, 6> kRoles = {"system",    "user", "assistant",
                                                    "developer", "tool", "latest_reminder"};

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == text.npos; }

// Whether a fence of code is opened and not closed: a line that begins with three backquotes and has no more of them.
bool has_open_fence(std::string_view text) {
  bool is_open = false;
  for (size_t line = 0; line < text.size();) {
    const size_t begin = std::min(text.find_first_not_of(" \t", line), text.size());
    const size_t end = std::min(text.find('\n', line), text.size());
    if (begin < end && text.substr(begin).starts_with("```")) {
      const size_t behind = std::min(text.find_first_not_of('`', begin), end);
      if (text.substr(behind, end - behind).find("```") == text.npos) is_open = !is_open;
    }
    line = end + 1;
  }
  return is_open;
}

void lint_answer(const Message& message, size_t index, LintFindings& findings) {
  if (is_blank(message.content) && message.tool_calls.empty())
    findings.add(LintRule::kEmptyAnswer,
                 fmt::format("message {}, of the assistant, {}", index,
                             is_blank(message.reasoning_content) ? "says nothing" : "thinks and then says nothing"));
  if (message.without_eos)
    findings.add(LintRule::kNoEndOfTurn, fmt::format("message {} of the assistant is not ended (wo_eos)", index));
  if (has_open_fence(message.content))
    findings.add(LintRule::kOpenCodeFence,
                 fmt::format("message {} opens a block of code and does not close it", index));
}

}  // namespace

void lint_turns(std::span<const Message> messages, size_t num_untrained, LintFindings& findings) {
  bool has_question = false, has_answer = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end())
      findings.add(LintRule::kUnknownRole, fmt::format("message {} has the role \"{}\"", i, message.role));
    if (message.role != "assistant") {
      has_question |= !is_blank(message.content) || !message.tools.empty() || !message.task.empty();
    } else if (i >= num_untrained) {
      has_answer = true;
      lint_answer(message, i, findings);
    } else {
      has_question = true;  // an earlier answer is context
    }
  }
  if (!has_answer) {
    findings.add(LintRule::kNoTrainedToken, "no message of the assistant is trained");
  } else if (!has_question) {
    findings.add(LintRule::kAllTrained, "nothing is asked: every token of text is trained");
  }
}

}  // namespace temper::data
