#include "checkpoint/side_files.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "chat_template.jinja",
                                           "chat_template.json",
                                           "vocab.json",
                                           "merges.txt"};
constexpr const char* kEncodingFolder = "encoding";  // of the release: the conversation format and its constants

nlohmann::ordered_json official_quantisation() {
  return {{"activation_scheme", "dynamic"},
          {"fmt", "e4m3"},
          {"quant_method", "fp8"},
          {"scale_fmt", "ue8m0"},
          {"weight_block_size", {128, 128}}};
}

}  // namespace

std::string make_config_json(const model::Config& config, const std::string& dtype, Quantisation quantisation) {
  auto json = config.source.empty() ? nlohmann::ordered_json::object()
                                    : parse_json<nlohmann::ordered_json>(config.source, "config.json of the model");
  json["model_type"] = "deepseek_v4";
  if (!json.contains("architectures")) json["architectures"] = {"DeepseekV4ForCausalLM"};
  if (quantisation == Quantisation::kNone) {
    json.erase("quantization_config");
    json.erase("expert_dtype");
  } else if (quantisation == Quantisation::kOfficial) {
    json["quantization_config"] = official_quantisation();
    json["expert_dtype"] = "fp4";
  }
  if (!dtype.empty()) {
    if (json.contains("torch_dtype")) json["torch_dtype"] = dtype;
    if (json.contains("dtype") || !json.contains("torch_dtype")) json["dtype"] = dtype;
  }
  // compress_ratios is read by transformers only where the rates are 4 and 128.
  if (!json.contains("layer_types") && (config.csa_rate != 4 || config.hca_rate != 128)) {
    auto& types = json["layer_types"] = nlohmann::ordered_json::array();
    for (const auto kind : config.layer_types)
      types.push_back(kind == model::AttentionKind::kSliding ? "sliding_attention"
                      : kind == model::AttentionKind::kCsa   ? "compressed_sparse_attention"
                                                             : "heavily_compressed_attention");
    json["compress_rates"] = {{"compressed_sparse_attention", config.csa_rate},
                              {"heavily_compressed_attention", config.hca_rate}};
  }
  return json.dump(2) + "\n";
}

std::vector<fs::path> tokenizer_files(const fs::path& dir) {
  std::vector<fs::path> files;
  const auto add = [&](const fs::path& name) {
    std::error_code error;
    if (fs::is_regular_file(dir / name, error)) files.push_back(name);
  };
  for (const char* name : kTokenizerFiles) add(name);
  std::error_code error;
  for (fs::directory_iterator entry(dir / kEncodingFolder, error), end; !error && entry != end; entry.increment(error))
    add(fs::path(kEncodingFolder) / entry->path().filename());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace temper::checkpoint
