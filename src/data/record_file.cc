#include "data/record_file.h"

#include <algorithm>

#include "base/error.h"

namespace temper::data {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

RecordFileKind kind_of(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".jsonl") return RecordFileKind::kJsonLines;
  if (extension == ".json") return RecordFileKind::kJsonList;
  if (extension == ".txt" || extension == ".md") return RecordFileKind::kPlainText;
  fail(ErrorCode::kUnsupported, "cannot read data from {}: its name must end in .jsonl, .json, .txt or .md",
       path.string());
}

// Bytes of the JSON value at the head of text: up to where its brackets close, or to the comma or bracket behind a
// value without brackets. npos: it does not end. Whether it is JSON is for the parser to say.
size_t value_length(std::string_view text) {
  int64_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return std::max<size_t>(i, 1);  // a stray bracket is a value that the parser refuses
      if (--depth == 0) return i + 1;
    } else if (c == ',' && depth == 0) {
      return i;
    }
  }
  return std::string_view::npos;
}

}  // namespace

RecordFile::RecordFile(const std::filesystem::path& path) : name_(path.string()), kind_(kind_of(path)) {
  file_.emplace(path);
  start({reinterpret_cast<const char*>(file_->data()), static_cast<size_t>(file_->size())});
}

RecordFile::RecordFile(std::string_view text, RecordFileKind kind, std::string name)
    : name_(std::move(name)), kind_(kind) {
  start(text);
}

void RecordFile::start(std::string_view text) {
  num_bytes_ = static_cast<int64_t>(text.size());
  rest_ = text;
  if (rest_.starts_with(kByteOrderMark)) rest_.remove_prefix(kByteOrderMark.size());
}

std::optional<RecordText> RecordFile::next() {
  if (kind_ == RecordFileKind::kJsonLines) return next_line();
  if (kind_ == RecordFileKind::kJsonList) return next_element();
  if (line_ != 1) return std::nullopt;
  line_ = 0;  // handed out
  return RecordText{rest_, 1};
}

std::optional<RecordText> RecordFile::next_line() {
  while (!rest_.empty()) {
    const size_t end = rest_.find('\n');
    const RecordText line = {rest_.substr(0, end), line_++};
    rest_.remove_prefix(end == rest_.npos ? rest_.size() : end + 1);
    if (line.text.find_first_not_of(" \t\r") != line.text.npos) return line;
  }
  return std::nullopt;
}

std::optional<RecordText> RecordFile::next_element() {
  skip_blanks();
  if (!inside_list_) {
    if (rest_.empty()) return std::nullopt;
    const int64_t first_line = line_;
    if (rest_[0] != '[') return RecordText{take(rest_.size()), first_line};
    inside_list_ = true;
    take(1);
    skip_blanks();
  } else if (rest_.starts_with(',')) {
    take(1);
    skip_blanks();
    if (rest_.starts_with(']'))
      fail(ErrorCode::kCorrupt, "{}:{}:1: a record should be here, behind the comma", name_, line_);
  } else if (!rest_.starts_with(']')) {
    fail(ErrorCode::kCorrupt, "{}:{}:1: a comma or the end of the list of records should be here", name_, line_);
  }
  if (rest_.starts_with(']')) {
    take(1);
    skip_blanks();
    if (!rest_.empty()) fail(ErrorCode::kCorrupt, "{}:{}:1: text after the end of the list of records", name_, line_);
    inside_list_ = false;
    return std::nullopt;
  }
  const int64_t line = line_;
  const size_t length = value_length(rest_);
  if (length == rest_.npos)
    fail(ErrorCode::kCorrupt, "{}:{}:1: the list of records is not closed: the file ends inside this record", name_,
         line);
  return RecordText{take(length), line};
}

void RecordFile::skip_blanks() { take(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size())); }

std::string_view RecordFile::take(size_t num_bytes) {
  const std::string_view head = rest_.substr(0, num_bytes);
  rest_.remove_prefix(num_bytes);
  line_ += std::count(head.begin(), head.end(), '\n');
  return head;
}

}  // namespace temper::data
