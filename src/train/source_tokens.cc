#include "train/source_tokens.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

// The last num_parts parts of a path, or all of it.
std::string tail(const fs::path& path, size_t num_parts) {
  const std::vector<fs::path> parts(path.begin(), path.end());
  fs::path out;
  for (size_t i = parts.size() - std::min(num_parts, parts.size()); i < parts.size(); ++i) out /= parts[i];
  return out.string();
}

std::string label_of(const fs::path& file, std::span<const fs::path> files) {
  const auto num_parts = static_cast<size_t>(std::distance(file.begin(), file.end()));
  for (size_t n = 1; n < num_parts; ++n) {
    std::string label = tail(file, n);
    const auto same = [&](const fs::path& other) { return other != file && tail(other, n) == label; };
    if (std::none_of(files.begin(), files.end(), same)) return label;
  }
  return file.string();
}

}  // namespace

SourceTokens::SourceTokens(std::span<const fs::path> files) {
  for (const fs::path& file : files) {
    const std::string label = label_of(file, files);
    labels_[file.string()] = label;
    counts_[label] = {};
  }
}

void SourceTokens::add(const data::LoaderStep& step) {
  for (size_t b = 0; b < step.micro_batches.size(); ++b) {
    const layers::MicroBatch& batch = step.micro_batches[b];
    CHECK(step.documents[b].size() + 1 == batch.cu_seqlens.size(), step.documents[b].size(), batch.cu_seqlens.size());
    for (size_t d = 0; d < step.documents[b].size(); ++d) {
      const std::string_view origin = step.documents[b][d]->origin;
      const auto label = labels_.find(origin.substr(0, origin.rfind(':')));
      CHECK(label != labels_.end(), std::string(origin));
      const auto begin = batch.targets.begin() + batch.cu_seqlens[d],
                 end = batch.targets.begin() + batch.cu_seqlens[d + 1];
      Count& count = counts_[label->second];
      count.tokens += end - begin;
      count.trained_tokens += std::count_if(begin, end, [](int32_t target) { return target >= 0; });
    }
  }
}

nlohmann::ordered_json SourceTokens::to_json() const {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [label, count] : counts_)
    json[label] = {{"tokens", count.tokens}, {"trained_tokens", count.trained_tokens}};
  return json;
}

void SourceTokens::restore(const nlohmann::ordered_json& json) {
  const auto is_count = [](const nlohmann::ordered_json& value, const char* key) {
    return value.is_object() && value.contains(key) && value[key].is_number_integer() && value[key].get<int64_t>() >= 0;
  };
  if (!json.is_object()) fail(ErrorCode::kCorrupt, "the tokens by source of a run state are not an object");
  for (const auto& [label, value] : json.items()) {
    if (!is_count(value, "tokens") || !is_count(value, "trained_tokens"))
      fail(ErrorCode::kCorrupt, "the tokens of source \"{}\" in a run state are not two counts", label);
    const auto at = counts_.find(label);
    if (at == counts_.end())
      fail(ErrorCode::kInvalidArgument, "the run state has tokens of \"{}\", which is not a file of data.train", label);
    at->second = {value["tokens"].get<int64_t>(), value["trained_tokens"].get<int64_t>()};
  }
}

}  // namespace temper::train
