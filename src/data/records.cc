#include "data/records.h"

#include "base/error.h"
#include "data/record_file.h"
#include "data/record_messages.h"
#include "data/record_parser.h"

namespace temper::data {

void for_each_record(const std::filesystem::path& path, const RecordOptions& options, const VisitRecord& visit) {
  RecordFile file(path);
  RecordParser parser(options);
  while (const auto text = file.next()) {
    visit(file.kind() == RecordFileKind::kPlainText ? parse_plain_text(text->text, path.string())
                                                    : parser.parse(text->text, file.origin(*text)));
  }
}

void for_each_record(const std::filesystem::path& path, const VisitRecord& visit) { for_each_record(path, {}, visit); }

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
