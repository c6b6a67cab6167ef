// The bytes are a .jsonl file (in memory, /dev/shm) that `temper data lint` looks at; the first chooses the mode.
// Whatever is wrong becomes a finding with its line: no record ends the linter.
#include "data/lint.h"

#include <unistd.h>

#include <fstream>

#include "base/thread.h"
#include "fuzz.h"

namespace temper::data {
namespace {

void check(bool thinking, std::string_view text) {
  static const std::string path = "/dev/shm/temper_lint_" + std::to_string(::getpid()) + ".jsonl";
  std::ofstream(path, std::ios::binary) << text;
  LintOptions options;
  if (thinking) options.conversation.mode = ConversationMode::kThinking;
  int64_t num_findings = 0;
  Linter linter(options, [&](const LintFinding& finding) {
    CHECK(finding.origin.starts_with(path) && !finding.explanation.empty(), finding.origin);
    ++num_findings;
  });
  linter.add(path);
  ::unlink(path.c_str());
  const LintReport& report = linter.report();
  CHECK(report.total_errors() + report.total_warnings() == num_findings, num_findings);
  CHECK(report.num_bytes == std::ssize(text) && report.num_records <= report.num_bytes, report.num_records);
}

}  // namespace
}  // namespace temper::data

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool one_thread = (temper::set_num_threads(1), true);
  if (one_thread && size > 0) temper::data::check(data[0] & 1, temper::fuzz::as_text(data + 1, size - 1));
  return 0;
}
