// temper data lint: what would train nonsense, with place and remedy; exit code 2 if there is any error.
#include <fmt/format.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/data_options.h"
#include "app/numbers.h"
#include "base/clock.h"
#include "base/file.h"
#include "data/lint.h"

namespace temper::app {
namespace {

using Paths = std::vector<std::filesystem::path>;

struct LintArguments {
  Paths files;
  DataOptions data;
  int64_t max_tokens = 0;
  int64_t max_findings = 20;
  std::filesystem::path json;
};

std::string_view severity_name(data::Severity severity) {
  return severity == data::Severity::kError ? "error" : "warning";
}

// The two parts of "file:line"; line 0 of a place that has none.
int64_t line_of(const std::string& origin) {
  const size_t colon = origin.rfind(':');
  return colon == std::string::npos ? 0 : std::atoll(origin.c_str() + colon + 1);
}
std::string file_of(const std::string& origin) {
  return line_of(origin) > 0 ? origin.substr(0, origin.rfind(':')) : origin;
}

// Prints findings, so many of a rule, and keeps them all for --json.
class FindingPrinter {
 public:
  FindingPrinter(int64_t max_findings, bool keeps_all) : max_findings_(max_findings), keeps_all_(keeps_all) {}

  void add(const data::LintFinding& finding) {
    const data::LintRuleInfo& rule = data::lint_rule(finding.rule);
    const int64_t count = ++num_printed_[static_cast<size_t>(finding.rule)];
    if (max_findings_ == 0 || count <= max_findings_)
      fmt::print("{}: {}: {}: {}; {}\n", finding.origin, severity_name(finding.severity), rule.name,
                 finding.explanation, rule.remedy);
    if (count == max_findings_ + 1 && max_findings_ > 0)
      fmt::print("{}: further findings of this rule are counted, not printed (--max-findings, --json)\n", rule.name);
    if (keeps_all_)
      findings_.push_back({{"file", file_of(finding.origin)},
                           {"line", line_of(finding.origin)},
                           {"severity", severity_name(finding.severity)},
                           {"rule", rule.name},
                           {"explanation", finding.explanation},
                           {"remedy", rule.remedy}});
  }

  nlohmann::ordered_json take() { return std::move(findings_); }

 private:
  int64_t max_findings_;
  bool keeps_all_;
  std::array<int64_t, data::kNumLintRules> num_printed_{};
  nlohmann::ordered_json findings_ = nlohmann::ordered_json::array();
};

void print_summary(const data::LintReport& report, double seconds) {
  if (report.total_errors() + report.total_warnings() > 0)
    fmt::print("\n{:22}{:>9}{:>10}\n", "rule", "errors", "warnings");
  for (size_t i = 0; i < data::kNumLintRules; ++i) {
    if (report.num_errors[i] + report.num_warnings[i] == 0) continue;
    fmt::print("{:22}{:>9}{:>10}\n", data::lint_rule(static_cast<data::LintRule>(i)).name, report.num_errors[i],
               report.num_warnings[i]);
  }
  const double megabytes = 1e-6 * static_cast<double>(report.num_bytes);
  fmt::print("\n{} records of {} files, {:.2f} MB in {:.2f} s ({:.1f} MB/s): {} errors, {} warnings\n",
             report.num_records, report.num_files, megabytes, seconds, megabytes / seconds, report.total_errors(),
             report.total_warnings());
  if (report.num_tokens > 0) {
    fmt::print("{} tokens, {} of them trained\n", report.num_tokens, report.num_trained_tokens);
  }
  if (report.num_unrendered > 0)
    fmt::print(
        "{} conversations with tools or response formats were not written out, for want of the model's blocks "
        "of prose (--model, --prose): their order and length are unchecked\n",
        report.num_unrendered);
}

nlohmann::ordered_json to_json(const data::LintReport& report, nlohmann::ordered_json findings) {
  nlohmann::ordered_json rules = nlohmann::ordered_json::object();
  for (size_t i = 0; i < data::kNumLintRules; ++i) {
    rules[std::string(data::lint_rule(static_cast<data::LintRule>(i)).name)] = {{"errors", report.num_errors[i]},
                                                                                {"warnings", report.num_warnings[i]}};
  }
  return {{"num_files", report.num_files},       {"num_records", report.num_records},
          {"num_bytes", report.num_bytes},       {"num_unrendered", report.num_unrendered},
          {"num_errors", report.total_errors()}, {"num_warnings", report.total_warnings()},
          {"rules", std::move(rules)},           {"findings", std::move(findings)}};
}

void lint(const LintArguments& arguments) {
  const auto tokenizer = arguments.data.load_tokenizer();
  data::LintOptions options;
  options.format = arguments.data.record_format();
  options.conversation = arguments.data.conversation();
  options.tokenizer = tokenizer ? &*tokenizer : nullptr;
  options.max_tokens = arguments.max_tokens;
  FindingPrinter printer(arguments.max_findings, !arguments.json.empty());
  data::Linter linter(options, [&](const data::LintFinding& finding) { printer.add(finding); });
  const double start = now_seconds();
  for (const auto& file : arguments.files) linter.add(file);
  print_summary(linter.report(), now_seconds() - start);
  if (!arguments.json.empty())
    write_file_atomically(arguments.json, to_json(linter.report(), printer.take()).dump(2) + "\n");
  constexpr int kUsersToMend = 2;
  if (linter.report().total_errors() > 0) throw CLI::RuntimeError(kUsersToMend);
}

}  // namespace

void add_data_lint(CLI::App& data) {
  auto arguments = std::make_shared<LintArguments>();
  CLI::App* command = data.add_subcommand("lint", "what would train nonsense, with its place and a remedy");
  command->add_option("FILES", arguments->files, "data files; duplicates are looked for among all of them")->required();
  arguments->data.add_to(*command);
  command->add_option("--max-tokens", arguments->max_tokens, "longest example (needs a tokenizer)")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 40));
  command->add_option("--max-findings", arguments->max_findings, "printed of each rule; 0 = all (default 20)")
      ->check(zero_or_above());
  command->add_option("--json", arguments->json, "file for all findings and counts");
  command->callback([arguments] { lint(*arguments); });
}

}  // namespace temper::app
