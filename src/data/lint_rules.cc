#include "data/lint_rules.h"

#include <algorithm>
#include <array>

namespace temper::data {
namespace {

constexpr Severity kError = Severity::kError, kWarning = Severity::kWarning;

// By the order of LintRule.
constexpr std::array<LintRuleInfo, kNumLintRules> kRules = {{
    {"unreadable", kError, "mend the record or leave it out; docs/data.md describes the formats"},
    {"unknown-role", kError, "use system, user, assistant, developer, tool or latest_reminder"},
    {"unknown-field", kWarning, "rename it if it should be trained on; it is passed over"},
    {"unsupported-part", kError, "leave the record out: the model reads text only and would see a placeholder"},
    {"not-renderable", kError, "mend the order of the messages or leave the record out"},
    {"no-trained-token", kError, "give it an answer of the assistant or leave it out"},
    {"all-trained", kError, "give it a question, or make it a record of text if it is meant as a document"},
    {"empty-answer", kError, "leave the turn out: the model would learn to say nothing"},
    {"no-end-of-turn", kError, "remove wo_eos, or the model learns not to stop"},
    {"think-tags", kError, "put thoughts into reasoning_content, or at the answer's head between <think> and </think>"},
    {"open-code-fence", kWarning, "look whether the answer was cut"},
    {"broken-tool-call", kError, "complete the call, or leave the record out if it was cut"},
    {"unknown-tool", kError, "declare the tool in \"tools\" or correct its name"},
    {"tool-arguments", kError, "correct the arguments or the tool's parameters"},
    {"result-without-call", kError, "add the call to the message of the assistant before it, or remove the result"},
    {"call-without-result", kWarning, "add the tool's result after the call"},
    {"control-token", kError, "remove or rewrite the text: it spells a token that steers the model"},
    {"foreign-template", kWarning, "split the text into messages; the mark belongs to another model's template"},
    {"hidden-character", kWarning, "remove the character: a reader does not see what the model is trained on"},
    {"control-character", kWarning, "remove the character"},
    {"mojibake", kWarning, "decode the source again as what it is, or leave the record out"},
    {"over-long", kWarning, "raise train.tokens_per_micro_batch, or shorten the record; it is cut or dropped"},
    {"cut-tool-call", kError, "raise the limit or set data.over_long = \"drop\": the call would be trained in half"},
    {"duplicate", kError, "keep one of them"},
    {"same-prompt", kWarning, "keep the best answer, unless several are wanted"},
}};

}  // namespace

const LintRuleInfo& lint_rule(LintRule rule) { return kRules[static_cast<size_t>(rule)]; }

bool LintFindings::has_errors() const {
  return std::any_of(findings_.begin(), findings_.end(),
                     [](const LintFinding& finding) { return finding.severity == Severity::kError; });
}

}  // namespace temper::data
