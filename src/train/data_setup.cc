#include "train/data_setup.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "data/loader.h"
#include "data/packing.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

// Whether name matches a pattern of characters, ? and *. Greedy, with one point to come back to: linear in practice.
bool matches(std::string_view name, std::string_view pattern) {
  size_t n = 0, p = 0, star = std::string_view::npos, star_name = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++, star_name = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1, n = ++star_name;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<fs::path> expand(const std::string& text) {
  const fs::path path(text);
  const std::string pattern = path.filename();
  if (pattern.find_first_of("*?") == std::string::npos) {
    if (!fs::is_regular_file(path)) fail(ErrorCode::kNotFound, "data file {} is not there", text);
    return {path};
  }
  const fs::path dir = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::is_directory(dir)) fail(ErrorCode::kNotFound, "data files {}: {} is no directory", text, dir.string());
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.is_regular_file() && matches(entry.path().filename().string(), pattern)) found.push_back(entry.path());
  }
  if (found.empty()) fail(ErrorCode::kNotFound, "data files {}: no file matches", text);
  std::sort(found.begin(), found.end());
  return found;
}

// Where the model's own files are: its tokenizer, its blocks of prose.
fs::path model_dir(const RunConfig& config) {
  if (!config.model.path.empty()) return config.model.path;
  const fs::path tokenizer(config.model.tokenizer);
  return fs::is_directory(tokenizer) ? tokenizer : tokenizer.parent_path();
}

data::ReasoningEffort effort_of(const std::string& name) {
  if (name == "max") return data::ReasoningEffort::kMax;
  if (name == "high") return data::ReasoningEffort::kHigh;
  return name == "low" ? data::ReasoningEffort::kLow : data::ReasoningEffort::kNone;
}

}  // namespace

std::vector<fs::path> expand_files(const std::vector<std::string>& patterns) {
  std::vector<fs::path> files;
  for (const std::string& pattern : patterns) {
    for (fs::path& file : expand(pattern)) files.push_back(std::move(file));
  }
  return files;
}

data::ReadOptions read_options(const RunConfig& config, int64_t model_vocab_size) {
  data::ReadOptions options;
  options.conversation.mode =
      config.data.mode == "thinking" ? data::ConversationMode::kThinking : data::ConversationMode::kChat;
  options.conversation.train_on_history = config.data.train_on_history;
  options.conversation.effort = effort_of(config.data.effort);
  options.conversation.prose = config.data.prose.empty() ? data::ProseBlocks::of_model(model_dir(config))
                                                         : data::ProseBlocks::read(config.data.prose);
  options.record_format = data::parse_record_format(config.data.format);
  options.format = config.data.prompt_format == "raw" ? data::PromptFormat::kRaw : data::PromptFormat::kChat;
  options.max_tokens = config.data.max_document > 0 ? config.data.max_document : config.train.tokens_per_micro_batch;
  options.max_document = options.max_tokens;
  options.when_long = config.data.over_long == "drop" ? data::LongExample::kDrop : data::LongExample::kCut;
  options.when_untrained =
      config.data.no_loss == "drop" ? data::UntrainedExample::kDrop : data::UntrainedExample::kError;
  options.model_vocab_size = model_vocab_size;
  return options;
}

fs::path tokenizer_path(const RunConfig& config) {
  return config.model.tokenizer.empty() ? config.model.path : config.model.tokenizer;
}

std::vector<layers::MicroBatch> pack_rows(const std::vector<data::Example>& examples, int64_t capacity) {
  std::vector<int64_t> lengths;
  lengths.reserve(examples.size());
  for (const auto& example : examples) lengths.push_back(static_cast<int64_t>(example.tokens.size()));
  std::vector<layers::MicroBatch> batches;
  for (const auto& row : data::pack_best_fit(lengths, capacity)) {
    batches.push_back(data::make_micro_batch(examples, row));
  }
  return batches;
}

std::string describe(const data::ReadReport& report) {
  return fmt::format(
      "{} examples{}, {} tokens ({} trained), longest {}; {} cut, {} dropped as too long, {} dropped without a trained "
      "token",
      report.num_examples,
      report.num_expanded > 0 ? fmt::format(" ({} conversations became one for each turn)", report.num_expanded) : "",
      report.num_tokens, report.num_trained_tokens, report.longest, report.num_cut, report.num_dropped_long,
      report.num_dropped_untrained);
}

}  // namespace temper::train
