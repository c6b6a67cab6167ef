// Trains a byte-level BPE tokenizer of DeepSeek's kind: same split patterns, same special-token texts, own vocabulary.
//
// Pieces of the texts are counted; then the most frequent adjacent pair of tokens is merged, again and again (Sennrich
// et al. 2016). Of equally frequent pairs the one with the smaller ids (left, then right) is merged: the same texts
// give the same file on any machine, and the same merges as Hugging Face's BpeTrainer with the same settings.
// Ids: special tokens from 0, the 256 bytes in the order of their characters, merged tokens in the order of merging.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/special_tokens.h"
#include "data/split.h"
#include "data/tokenizer_file.h"

namespace temper::data {

struct TrainerOptions {
  int64_t vocab_size = 0;  // special tokens and bytes included
  std::vector<std::string> special_tokens{kConversationTokens.begin(), kConversationTokens.end()};
  std::vector<std::string> split_patterns = deepseek_split_patterns();
  int64_t min_count = 2;  // pairs seen less often are not merged
};

// Special tokens are not looked for in the texts. The vocabulary is smaller than asked when no pair is left.
// Refuses (kInvalidArgument) a vocab_size below special tokens + 256, an empty or double special token, a text that is
// not UTF-8 (its index is named), no text at all.
TokenizerSpec train_tokenizer(std::span<const std::string_view> texts, const TrainerOptions& options);

// Writes DIR/tokenizer.json and DIR/tokenizer_config.json, each whole; creates DIR. transformers loads the directory as
// PreTrainedTokenizerFast.
void write_tokenizer(const std::filesystem::path& directory, const TokenizerSpec& spec);

}  // namespace temper::data
