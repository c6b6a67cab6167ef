// What stands beside the weights in a model directory: config.json and the tokenizer's files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "model/config.h"

namespace temper::checkpoint {

// How the weights beside a config.json are stored, for its fields quantization_config and expert_dtype.
enum class Quantisation : uint8_t {
  kNone,      // not at all: the fields go
  kSource,    // as the source's: the fields stay what they are
  kOfficial,  // as the released instruct checkpoints: experts FP4, projections FP8, scales ue8m0
};

// config.source with its dtype (as torch spells it: "bfloat16"; empty: stays) and quantisation set, and with lists of
// layers where transformers needs them.
std::string make_config_json(const model::Config& config, const std::string& dtype, Quantisation quantisation);

// The files of dir that belong to the tokenizer and the conversation format, by their paths in dir: tokenizer.json and
// its companions, and the files in encoding/. Sorted.
std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& dir);

}  // namespace temper::checkpoint
