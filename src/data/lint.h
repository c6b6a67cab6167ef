// Looks for what would train nonsense, record by record: see lint_rules.h and docs/data.md.
#pragma once

#include <array>
#include <filesystem>
#include <functional>

#include "data/conversation.h"
#include "data/duplicates.h"
#include "data/lint_rules.h"
#include "data/lint_text.h"
#include "data/record_file.h"
#include "data/record_parser.h"
#include "data/tokenizer.h"

namespace temper::data {

struct LintOptions {
  RecordFormat format = RecordFormat::kAuto;
  ConversationOptions conversation = {};
  const Tokenizer* tokenizer = nullptr;  // for lengths and its own special tokens; may be absent
  int64_t max_tokens = 0;                // capacity of a row; 0 = no limit. Needs the tokenizer
};

struct LintReport {
  int64_t num_files = 0, num_records = 0, num_bytes = 0;
  int64_t num_unrendered = 0;  // sound so far, but their prose blocks were not given: not written out, not measured
  int64_t num_tokens = 0, num_trained_tokens = 0;  // with a tokenizer; of records without errors
  std::array<int64_t, kNumLintRules> num_errors{}, num_warnings{};
  int64_t total_errors() const;
  int64_t total_warnings() const;
};

// Reads files as a stream, records in parallel; findings come in the order of the records.
class Linter {
 public:
  using Visit = std::function<void(const LintFinding&)>;

  // Refuses (kInvalidArgument) max_tokens without a tokenizer.
  Linter(const LintOptions& options, Visit visit);

  // Looks at every record of a file; duplicates are looked for among all files so far. A record that cannot be read is
  // a finding, and the next one is looked at. Refuses what RecordFile's constructor refuses.
  void add(const std::filesystem::path& file);

  const LintReport& report() const { return report_; }

 private:
  struct Result;
  void lint(const RecordFile& file, const RecordText& text, RecordParser& parser, Result& out) const;
  void lint_record(const Record& record, std::span<const Message> messages, Result& out) const;
  void lint_texts(const Record& record, std::span<const Message> messages, LintFindings& findings) const;
  void lint_rendered(const Record& record, std::span<const Message> messages, Result& out) const;
  void lint_length(const EncodedConversation& encoded, LintFindings& findings) const;
  void merge(const std::string& file, int64_t line, Result& result);

  LintOptions options_;
  Visit visit_;
  TextLinter text_linter_;
  std::vector<RecordParser> parsers_;  // one a thread
  DuplicateFinder duplicates_;
  LintReport report_;
};

}  // namespace temper::data
