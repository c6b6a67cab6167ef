// The first byte chooses the kind of file and whether remarks are collected, the rest is a file of training data. Every
// record that is accepted is of the file, in order, and can be made a conversation if it is one.
#include <string>

#include "data/record_file.h"
#include "data/record_parser.h"
#include "data/records.h"
#include "fuzz.h"

namespace temper::data {
namespace {

void check_record(const Record& record, int64_t line) {
  CHECK(record.origin == "fuzz:" + std::to_string(line), record.origin, line);
  CHECK(record.num_prompt_messages <= record.messages.size());
  CHECK(record.weight >= 0 && record.weight <= 1e6F, record.weight);
  if (record.kind != RecordKind::kText) CHECK(!record_messages(record).empty());
}

void check(uint8_t choice, std::string_view text) {
  const auto kind = static_cast<RecordFileKind>(choice % 3);
  fuzz::accepts([&] {
    RecordFile file(text, kind, "fuzz");
    RecordParser parser({.with_remarks = choice >= 128});
    int64_t line = 0;
    while (const auto record = file.next()) {
      CHECK(record->line > line || kind == RecordFileKind::kJsonList, record->line, line);
      CHECK(record->text.data() >= text.data());
      CHECK(record->text.data() + record->text.size() <= text.data() + text.size());
      line = record->line;
      check_record(kind == RecordFileKind::kPlainText ? parse_plain_text(record->text, "fuzz")
                                                      : parser.parse(record->text, file.origin(*record)),
                   line);
    }
  });
}

}  // namespace
}  // namespace temper::data

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) temper::data::check(data[0], temper::fuzz::as_text(data + 1, size - 1));
  return 0;
}
