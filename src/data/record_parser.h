// The text of one record to a Record; records.h says what becomes of which format.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "data/record_file.h"
#include "data/records.h"

namespace temper::data {

// Keeps its parsers' memory between calls; for one thread.
class RecordParser {
 public:
  explicit RecordParser(const RecordOptions& options);
  RecordParser(RecordParser&&) noexcept;
  RecordParser& operator=(RecordParser&&) noexcept;
  ~RecordParser();

  // Refuses what for_each_record refuses of a record; errors begin with `origin`, a file and line.
  Record parse(std::string_view json, const std::string& origin);

 private:
  struct Memory;
  RecordOptions options_;
  std::unique_ptr<Memory> memory_;
};

// A whole file of plain text as a record. Refuses (kCorrupt, with line and column) what is not UTF-8.
Record parse_plain_text(std::string_view text, const std::string& name);

}  // namespace temper::data
