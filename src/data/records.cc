#include "data/records.h"

#include "base/error.h"
#include "data/record_file.h"
#include "data/record_messages.h"
#include "data/record_parser.h"

namespace temper::data {

namespace {

Record parse(const RecordFile& file, const RecordText& text, RecordParser& parser, const std::string& name) {
  if (file.kind() == RecordFileKind::kPlainText) return parse_plain_text(text.text, name);
  return parser.parse(text.text, file.origin(text));
}

}  // namespace

void for_each_record(const std::filesystem::path& path, const RecordOptions& options, const VisitRecord& visit) {
  RecordFile file(path);
  RecordParser parser(options);
  while (const auto text = file.next()) visit(parse(file, *text, parser, path.string()));
}

void for_each_record(const std::filesystem::path& path, const VisitRecord& visit) { for_each_record(path, {}, visit); }

Record read_record(const std::filesystem::path& path, const RecordOptions& options, int64_t number) {
  RecordFile file(path);
  RecordParser parser(options);
  int64_t count = 0;
  while (const auto text = file.next()) {
    if (++count == number) return parse(file, *text, parser, path.string());
  }
  fail(ErrorCode::kInvalidArgument, "{} has {} records; there is no record {}", path.string(), count, number);
}

std::vector<Message> record_messages(const Record& record) {
  if (record.kind == RecordKind::kText)
    fail(ErrorCode::kInvalidArgument, "{}:1: a record of plain text is not a conversation", record.origin);
  if (!record.messages.empty()) return record.messages;
  std::vector<Message> messages(2);
  messages[0].role = "user", messages[0].content = record.prompt;
  messages[1].role = "assistant", messages[1].content = record.completion;
  split_reasoning(messages[1]);
  return messages;
}

}  // namespace temper::data
