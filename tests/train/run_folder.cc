#include "train/run_folder.h"

#include <fmt/format.h>

#include <fstream>
#include <string_view>

#include "base/file.h"
#include "base/lines.h"
#include "data/tokenizer_trainer.h"
#include "train/metrics.h"

namespace temper::train::testing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::string_view kText =
    "In the beginning was the word, and the word was with the text, and the text was the word. And the word was made "
    "text, and dwelt among us; and the beginning was in the end.";

}  // namespace

void make_run_folder(const fs::path& dir) {
  fs::create_directories(dir);
  data::TrainerOptions options;
  options.vocab_size = 280;
  const std::string_view texts[] = {kText};
  data::write_tokenizer(dir / "tokenizer", data::train_tokenizer(texts, options));
  Json config = Json::parse(read_file(TEMPER_SOURCE_DIR "/tests/fixtures/v4/mixed_rate16/config.json"));
  config["vocab_size"] = 288;
  std::ofstream(dir / "config.json") << config.dump();
  config["num_nextn_predict_layers"] = 1;
  std::ofstream(dir / "mtp.json") << config.dump();
  const Json text = {{"text", kText}}, pair = {{"prompt", "word?"}, {"completion", "text, and the word"}};
  std::ofstream(dir / "text.jsonl") << text.dump() << "\n" << text.dump() << "\n";
  std::ofstream(dir / "pairs.jsonl") << pair.dump() << "\n" << pair.dump() << "\n";
}

std::string run_file_text(const fs::path& dir) {
  return fmt::format(R"(
[model]
config = "{0}/config.json"
tokenizer = "{0}/tokenizer"
[data]
train = "{0}/text.*"
eval = "{0}/text.jsonl"
[train]
objective = "pretrain"
precision = "fp32"
tokens_per_micro_batch = 96
gradient_accumulation = 2
steps = 8
[optimizer]
lr = 1e-2
warmup_steps = 2
[output]
dir = "{0}/run"
)",
                     dir.string());
}

std::vector<Json> read_lines(const fs::path& path) {
  std::vector<Json> lines;
  for_each_line(read_file(path), [&](std::string_view line, int64_t) { lines.push_back(Json::parse(line)); });
  return lines;
}

std::vector<Json> mathematics_in(const std::string& metrics) {
  std::vector<Json> lines;
  for_each_line(metrics, [&](std::string_view text, int64_t) {
    const Json line = Json::parse(text);
    Json& mathematics = lines.emplace_back(Json::object());
    for (const auto& [key, value] : line.items())
      if (!is_machine_field(key)) mathematics[key] = value;
  });
  return lines;
}

std::vector<Json> mathematics_of(const fs::path& metrics) { return mathematics_in(read_file(metrics)); }

std::map<std::string, std::string> snapshot(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_regular_file()) files[entry.path().string()] = read_file(entry.path());
  }
  return files;
}

}  // namespace temper::train::testing
