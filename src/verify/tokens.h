// The tokens that a check runs: documents of a JSONL file, or random ones.
#pragma once

#include <filesystem>

#include "layers/token_layout.h"
#include "model/config.h"

namespace temper::verify {

struct TokenOptions {
  std::filesystem::path file;  // empty: random tokens
  int64_t num_tokens = 0;      // random tokens; 0: default_num_tokens
  uint64_t seed = 1;
};

// As many tokens as fill the sliding window and make an entry of the slowest compressor, and one more. (The indexer has
// a choice only where a token sees more than index_topk entries, which a released model does after thousands.)
int64_t default_num_tokens(const model::Config& config);

// One packed row: a document for each line {"input_ids": [...]} of the file, or one random document. No targets.
// Throws, naming file and line: kCorrupt where a line is not JSON, kInvalidArgument where it has no input_ids or an id
// outside the vocabulary.
layers::MicroBatch read_tokens(const TokenOptions& options, const model::Config& config);

}  // namespace temper::verify
