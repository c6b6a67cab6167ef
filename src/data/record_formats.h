// The formats in which training data come, told apart by the fields of a record.
//
//   name               fields that it needs                      also read
//   messages           messages                                  system, tools, response_format
//   sharegpt           conversations                             system, tools, response_format
//   alpaca             instruction, output                       input, history, system
//   prompt-completion  prompt, completion                        system, tools, response_format
//                      (or question, answer; or query, response)
//   text               text
// and in each: weight, id, source. docs/data.md describes them all.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace temper::data {

enum class RecordFormat : uint8_t { kAuto, kMessages, kShareGpt, kAlpaca, kPromptCompletion, kText };

// Names of the formats, "auto" first, by the enum's order.
inline constexpr std::array<std::string_view, 6> kRecordFormatNames = {"auto",   "messages",          "sharegpt",
                                                                       "alpaca", "prompt-completion", "text"};

// Refuses (kInvalidArgument) a name that is not of kRecordFormatNames.
RecordFormat parse_record_format(std::string_view name);
std::string_view record_format_name(RecordFormat format);

// The two fields that hold question and answer in a prompt-completion record; nullptr if `fields` has no such pair.
using FieldPair = std::array<std::string_view, 2>;
const FieldPair* find_prompt_fields(std::span<const std::string_view> fields);

// The format of a record that has these fields: `asked`, unless that is kAuto. Refuses (kInvalidArgument, beginning
// with `origin`): fields of no format, or of several; fields that lack what the asked format needs. The message says
// which fields were found and what each format needs.
RecordFormat detect_format(std::span<const std::string_view> fields, RecordFormat asked, std::string_view origin);

}  // namespace temper::data
