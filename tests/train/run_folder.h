// A folder with all that a run needs: a tokenizer, the tiny model's config.json with its vocabulary, a few files of
// data.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace temper::train::testing {

// Creates dir and writes tokenizer/, config.json, mtp.json (the same with a prediction block), text.jsonl (for
// pretraining) and pairs.jsonl (prompt and completion).
void make_run_folder(const std::filesystem::path& dir);

// A run file: eight steps of pretraining into dir/run.
std::string run_file_text(const std::filesystem::path& dir);

std::vector<nlohmann::ordered_json> read_lines(const std::filesystem::path& path);

// Lines of a metrics.jsonl (its text) without what only says how fast the machine was.
std::vector<nlohmann::ordered_json> mathematics_in(const std::string& metrics);
// The same of a file.
std::vector<nlohmann::ordered_json> mathematics_of(const std::filesystem::path& metrics);

// Every file below a directory with its contents.
std::map<std::string, std::string> snapshot(const std::filesystem::path& dir);

}  // namespace temper::train::testing
