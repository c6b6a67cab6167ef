// From the [data] keys of RUN.toml to examples.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/reader.h"
#include "layers/token_layout.h"
#include "train/run_config.h"

namespace temper::train {

// Files named by paths whose last component may hold * (any characters) and ? (one character); matches are sorted.
// Throws kNotFound naming the path or pattern that has no file.
std::vector<std::filesystem::path> expand_files(const std::vector<std::string>& patterns);

// How records become examples; examples fit into a row of train.tokens_per_micro_batch tokens.
data::ReadOptions read_options(const RunConfig& config, int64_t model_vocab_size);

// The directory or file of the run's tokenizer.
std::filesystem::path tokenizer_path(const RunConfig& config);

// Examples in rows of at most `capacity` tokens, packed best fit, in a fixed order.
std::vector<layers::MicroBatch> pack_rows(const std::vector<data::Example>& examples, int64_t capacity);

// "1024 examples, 65536 tokens (32768 trained), longest 812; 3 cut, 1 dropped as too long, ..."
std::string describe(const data::ReadReport& report);

}  // namespace temper::train
