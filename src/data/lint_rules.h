// The rules of `temper data lint`: what each finds, and what to do about it. docs/data.md lists them for users.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace temper::data {

// In the order of the summary.
enum class LintRule : uint8_t {
  kUnreadable,
  kUnknownRole,
  kUnknownField,
  kUnsupportedPart,
  kNotRenderable,
  kNoTrainedToken,
  kAllTrained,
  kEmptyAnswer,
  kNoEndOfTurn,
  kThinkTags,
  kOpenCodeFence,
  kBrokenToolCall,
  kUnknownTool,
  kToolArguments,
  kResultWithoutCall,
  kCallWithoutResult,
  kControlToken,
  kForeignTemplate,
  kHiddenCharacter,
  kControlCharacter,
  kMojibake,
  kOverLong,
  kCutToolCall,
  kDuplicate,
  kSamePrompt,
};
inline constexpr size_t kNumLintRules = static_cast<size_t>(LintRule::kSamePrompt) + 1;

// An error would train nonsense; a warning is worth a look.
enum class Severity : uint8_t { kWarning, kError };

struct LintRuleInfo {
  std::string_view name;
  Severity severity;  // of most findings; some are graver in text that is trained
  std::string_view remedy;
};
const LintRuleInfo& lint_rule(LintRule rule);

struct LintFinding {
  LintRule rule;
  Severity severity;
  std::string origin;       // "file:line", or with a column
  std::string explanation;  // what was found, where in the record
};

// Collects the findings of one record.
class LintFindings {
 public:
  explicit LintFindings(std::string origin) : origin_(std::move(origin)) {}

  void add(LintRule rule, std::string explanation) { add(rule, lint_rule(rule).severity, std::move(explanation)); }
  void add(LintRule rule, Severity severity, std::string explanation) {
    findings_.push_back({rule, severity, origin_, std::move(explanation)});
  }
  bool has_errors() const;
  const std::string& origin() const { return origin_; }
  std::vector<LintFinding> take() { return std::move(findings_); }

 private:
  std::string origin_;
  std::vector<LintFinding> findings_;
};

}  // namespace temper::data
