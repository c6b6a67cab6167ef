// What a linter finds in the turns of a conversation: who speaks, and what the assistant would learn.
#pragma once

#include <span>

#include "data/conversation.h"
#include "data/lint_rules.h"

namespace temper::data {

// Rules unknown-role, empty-answer, no-end-of-turn, open-code-fence, no-trained-token, all-trained. The first
// num_untrained messages are context.
void lint_turns(std::span<const Message> messages, size_t num_untrained, LintFindings& findings);

}  // namespace temper::data
