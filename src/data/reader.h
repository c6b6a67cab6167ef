// Files of records to examples: tokens and the mask of the trained ones, checked against the model and the row.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/conversation.h"
#include "data/records.h"
#include "data/tokenizer.h"

namespace temper::data {

// One document of training: it is packed whole, and no other document sees it.
struct Example {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;  // by token: 1 = the loss is on PREDICTING this token; never on the first
  float weight = 1;              // of every trained token
  std::string origin;            // "file:line"
};

// How prompt and completion strings are written: as a user and an assistant turn of the V4 format, or
// BOS prompt completion EOS.
enum class PromptFormat : uint8_t { kChat, kRaw };

// What happens to a conversation longer than max_tokens: its start is kept, or it is left out. Both are counted.
enum class LongExample : uint8_t { kCut, kDrop };

// What happens to a record without a trained token; kept to be looked at, not to be trained on.
enum class UntrainedExample : uint8_t { kError, kDrop, kKeep };

struct ReadOptions {
  ConversationOptions conversation = {};  // its num_context must be 0
  RecordFormat record_format = RecordFormat::kAuto;
  PromptFormat format = PromptFormat::kChat;
  int64_t max_tokens = 0;    // capacity of a row; 0 = no limit
  int64_t max_document = 0;  // plain text is cut into documents of at most so many tokens; 0 = max_tokens
  LongExample when_long = LongExample::kCut;
  UntrainedExample when_untrained = UntrainedExample::kError;
  int64_t model_vocab_size = 0;  // of the model that will be trained; 0 = not checked
};

struct ReadReport {
  int64_t num_records = 0, num_examples = 0;
  int64_t num_expanded = 0;           // conversations that became an example for each turn of the assistant
  int64_t num_cut = 0;                // shortened to max_tokens
  int64_t num_dropped_long = 0;       // longer than max_tokens, or without a trained token once cut
  int64_t num_dropped_untrained = 0;  // without a trained token
  int64_t num_tokens = 0, num_trained_tokens = 0;
  int64_t longest = 0;  // tokens of the longest example before any cut; of plain text: of its longest document
};

// Examples of all files, in order; adds to `report`. A conversation makes the examples that conversation_parts says,
// each cut or dropped on its own. Text records become BOS text EOS, trained but for BOS. A long one
// is cut into documents of at most max_document tokens; each but the first begins with the last token of the one
// before, so that every token is predicted once, and only the last ends with EOS. Refuses what for_each_record and
// render_conversation refuse; kInvalidArgument: a tokenizer with more ids than the model (both sizes are named), limits
// below 2, a record without a trained token if so asked, message lists in raw format.
std::vector<Example> read_examples(std::span<const std::filesystem::path> files, const Tokenizer& tokenizer,
                                   const ReadOptions& options, ReadReport& report);

// The examples of one record; refuses the same.
std::vector<Example> record_examples(const Record& record, const Tokenizer& tokenizer, const ReadOptions& options,
                                     ReadReport& report);

}  // namespace temper::data
