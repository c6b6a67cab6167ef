// A file of training data, cut into the texts of its records, with the line where each begins.
//
//   .jsonl        UTF-8, an object a line; blank lines are skipped
//   .json         UTF-8, one list of objects, or one object: a single record
//   .txt, .md     one record of plain text: the whole file
// A byte order mark at the start is passed over. The file is mapped, not read whole.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"

namespace temper::data {

enum class RecordFileKind : uint8_t { kJsonLines, kJsonList, kPlainText };

struct RecordText {
  std::string_view text;  // of the mapped file: valid as long as it is
  int64_t line = 1;       // from 1
};

class RecordFile {
 public:
  // Refuses: kNotFound, kIo; kUnsupported, another extension.
  explicit RecordFile(const std::filesystem::path& path);

  // The same from text that is in memory and stays there; `name` stands for the file in messages.
  RecordFile(std::string_view text, RecordFileKind kind, std::string name);

  // The next record's text, unchecked but for where it ends. Refuses (kCorrupt, with line) a list without commas or
  // without an end.
  std::optional<RecordText> next();

  // "file:line" of a record, as messages to the user begin.
  std::string origin(const RecordText& record) const { return name_ + ":" + std::to_string(record.line); }
  RecordFileKind kind() const { return kind_; }
  int64_t num_bytes() const { return num_bytes_; }

 private:
  void start(std::string_view text);
  std::optional<RecordText> next_line();
  std::optional<RecordText> next_element();
  void skip_blanks();
  std::string_view take(size_t num_bytes);

  std::optional<MappedFile> file_;  // that rest_ looks into
  std::string name_;
  RecordFileKind kind_;
  int64_t num_bytes_ = 0;
  std::string_view rest_;     // what has not been handed out
  int64_t line_ = 1;          // where rest_ begins
  bool inside_list_ = false;  // after the [ of a JSON list
};

}  // namespace temper::data
