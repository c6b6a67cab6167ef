#include "data/record_formats.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace temper::data {
namespace {

// One way to hold a record: the second field is empty where one is enough.
struct Signature {
  RecordFormat format;
  FieldPair needed;
};
constexpr Signature kSignatures[] = {
    {RecordFormat::kMessages, {"messages", ""}},
    {RecordFormat::kShareGpt, {"conversations", ""}},
    {RecordFormat::kAlpaca, {"instruction", "output"}},
    {RecordFormat::kPromptCompletion, {"prompt", "completion"}},
    {RecordFormat::kPromptCompletion, {"question", "answer"}},
    {RecordFormat::kPromptCompletion, {"query", "response"}},
    {RecordFormat::kText, {"text", ""}},
};

bool has(std::span<const std::string_view> fields, std::string_view name) {
  return name.empty() || std::find(fields.begin(), fields.end(), name) != fields.end();
}
bool matches(const Signature& signature, std::span<const std::string_view> fields) {
  return has(fields, signature.needed[0]) && has(fields, signature.needed[1]);
}

std::string join(std::span<const std::string_view> names, std::string_view between) {
  std::string out;
  for (const std::string_view name : names) (out += out.empty() ? "" : between) += name;
  return out;
}

// "messages (messages), ..., prompt-completion (prompt, completion; or question, answer; or query, response), ..."
std::string describe_formats() {
  std::string out;
  RecordFormat last = RecordFormat::kAuto;
  for (const auto& [format, needed] : kSignatures) {
    const std::string fields = needed[1].empty() ? std::string(needed[0]) : fmt::format("{}, {}", needed[0], needed[1]);
    if (format == last) {
      out.insert(out.size() - 1, "; or " + fields);
    } else {
      out += fmt::format("{}{} ({})", out.empty() ? "" : ", ", record_format_name(format), fields);
    }
    last = format;
  }
  return out;
}

// What a user may have meant whose fields are of no format.
std::string_view hint(std::span<const std::string_view> fields) {
  if (has(fields, "chosen") && has(fields, "rejected"))
    return "; these are preference pairs, which supervised training does not read";
  if (has(fields, "role") && has(fields, "content")) return "; this is one message: a record is {\"messages\": [...]}";
  return "";
}

}  // namespace

RecordFormat parse_record_format(std::string_view name) {
  const auto* found = std::find(kRecordFormatNames.begin(), kRecordFormatNames.end(), name);
  if (found == kRecordFormatNames.end())
    fail(ErrorCode::kInvalidArgument, "there is no data format \"{}\"; known are {}", name,
         join(kRecordFormatNames, ", "));
  return static_cast<RecordFormat>(found - kRecordFormatNames.begin());
}

std::string_view record_format_name(RecordFormat format) { return kRecordFormatNames[static_cast<size_t>(format)]; }

const FieldPair* find_prompt_fields(std::span<const std::string_view> fields) {
  for (const Signature& signature : kSignatures) {
    if (signature.format == RecordFormat::kPromptCompletion && matches(signature, fields)) return &signature.needed;
  }
  return nullptr;
}

RecordFormat detect_format(std::span<const std::string_view> fields, RecordFormat asked, std::string_view origin) {
  std::vector<std::string_view> found;  // names of the formats that fit
  RecordFormat format = RecordFormat::kAuto;
  for (const Signature& signature : kSignatures) {
    if (!matches(signature, fields)) continue;
    if (signature.format == asked) return asked;
    format = signature.format;
    found.push_back(record_format_name(format));
  }
  if (asked != RecordFormat::kAuto)
    fail(ErrorCode::kInvalidArgument, "{}:1: the record has the fields {}, which is not the format {}; formats: {}",
         origin, join(fields, ", "), record_format_name(asked), describe_formats());
  if (found.empty())
    fail(ErrorCode::kInvalidArgument, "{}:1: the record has the fields {}, which is no known format: {}{}", origin,
         join(fields, ", "), describe_formats(), hint(fields));
  if (found.size() > 1)
    fail(ErrorCode::kInvalidArgument,
         "{}:1: the record has the fields {}, which may be {}; name the format (data.format, --format) or rename a "
         "field",
         origin, join(fields, ", "), join(found, " or "));
  return format;
}

}  // namespace temper::data
