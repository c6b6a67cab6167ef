// What a linter finds in the calls of tools of a conversation, and in their results.
#pragma once

#include <span>

#include "data/conversation.h"
#include "data/lint_rules.h"

namespace temper::data {

// Rules broken-tool-call (arguments that are no JSON object), unknown-tool (not among the tools that the conversation
// declares), tool-arguments (a required one missing, one of the wrong type or outside an enum, one that is not declared
// where additionalProperties is false; the top level of the schema only), result-without-call, call-without-result.
// Results are told by their ids where both sides have them, else by their number. Calls at the conversation's end have
// no results yet and are sound.
void lint_tools(std::span<const Message> messages, LintFindings& findings);

}  // namespace temper::data
