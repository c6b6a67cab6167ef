#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/path_inside.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/save_dir.h"
#include "checkpoint/save_plan.h"
#include "checkpoint/side_files.h"
#include "checkpoint/weight_writer.h"
#include "checkpoint/whole_weights.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;
using layers::Parameter;

// A tensor of a file: one half of a planned weight.
struct Entry {
  const PlannedWeight* planned;
  bool is_scale;

  const TensorInfo& info() const { return is_scale ? *planned->scale : planned->weight; }
};
using Shard = std::vector<Entry>;

// Cuts the list into files of at most max_bytes, except where one weight with its scale is larger.
std::vector<Shard> cut_shards(const std::vector<PlannedWeight>& plan, int64_t max_bytes) {
  std::vector<Shard> shards;
  int64_t num_bytes = 0;
  for (const auto& planned : plan) {
    if (shards.empty() || num_bytes + planned.num_bytes() > max_bytes) {
      shards.emplace_back();
      num_bytes = 0;
    }
    num_bytes += planned.num_bytes();
    shards.back().push_back({&planned, false});
    if (planned.scale) shards.back().push_back({&planned, true});
  }
  for (auto& shard : shards)  // wide elements first: every tensor is then aligned to its elements
    std::stable_sort(shard.begin(), shard.end(), [](const Entry& a, const Entry& b) {
      return file_dtype_bytes(a.info().dtype) > file_dtype_bytes(b.info().dtype);
    });
  return shards;
}

void write_shard(const fs::path& path, const Shard& shard, WholeWeights& weights) {
  std::vector<TensorInfo> infos;
  infos.reserve(shard.size());
  for (const Entry& entry : shard) infos.push_back(entry.info());
  SafetensorsWriter file(path, infos);
  WeightWriter writer(weights);
  for (const Entry& entry : shard) {
    weights.keep_waiting();
    if (entry.is_scale)
      writer.write_scale(file, *entry.planned);
    else
      writer.write_weight(file, *entry.planned);
  }
  file.commit();
}

void write_shards(SaveDir& out, const std::vector<Shard>& shards, WholeWeights& weights) {
  if (shards.size() == 1) return write_shard(out.stage(std::string(kSingleFileName)), shards.front(), weights);
  nlohmann::json weight_map;
  int64_t total_bytes = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    for (const Entry& entry : shards[i]) {
      weight_map[entry.info().name] = name;
      total_bytes += entry.info().num_bytes();
    }
    write_shard(out.stage(name), shards[i], weights);
  }
  nlohmann::ordered_json index;
  index["metadata"] = {{"total_size", total_bytes}};
  index["weight_map"] = weight_map;
  write_file_atomically(out.stage(std::string(kIndexFileName)), index.dump(2) + "\n");
}

void write_generation_config(SaveDir& out, const model::Config& config, const fs::path& source_dir) {
  constexpr const char* kName = "generation_config.json";
  if (!source_dir.empty() && fs::exists(source_dir / kName))
    return write_file_atomically(out.stage(kName), read_file(path_inside(source_dir, kName)));
  nlohmann::ordered_json json = {{"_from_model_config", true}};
  if (config.bos_token_id >= 0) json["bos_token_id"] = config.bos_token_id;
  if (config.eos_token_id >= 0) json["eos_token_id"] = config.eos_token_id;
  write_file_atomically(out.stage(kName), json.dump(2) + "\n");
}

void copy_tokenizer(SaveDir& out, const fs::path& from) {
  if (from.empty()) return;
  for (const auto& name : tokenizer_files(from))
    write_file_atomically(out.stage(name.string()), read_file(path_inside(from, name)));
}

// config.json for what is written.
std::string config_json(const model::Config& config, const std::vector<PlannedWeight>& plan, SaveDType dtype,
                        bool has_source) {
  const bool is_quantised = std::any_of(
      plan.begin(), plan.end(), [](const PlannedWeight& planned) { return planned.encoding != Encoding::kPlain; });
  const bool says_so = config.source.find("\"quantization_config\"") != std::string::npos;
  const auto quantisation = !is_quantised ? Quantisation::kNone
                            : says_so     ? Quantisation::kSource
                                          : Quantisation::kOfficial;
  if (has_source && (dtype == SaveDType::kSource || (is_quantised && says_so)))
    return make_config_json(config, "", quantisation);
  const bool is_f32 = dtype == SaveDType::kF32 || dtype == SaveDType::kSource;
  return make_config_json(config, is_f32 ? "float32" : "bfloat16", quantisation);
}

void write_model(const fs::path& dir, const model::Config& config, WholeWeights& weights, const SaveOptions& options) {
  std::optional<WeightSource> source;
  if (!options.source_dir.empty() && TensorDir::exists(options.source_dir)) source.emplace(options.source_dir);
  const auto plan = plan_save(weights.parameters(), source ? &*source : nullptr, options.dtype, options.style);
  SaveDir out(dir, options.overwrite);
  write_shards(out, cut_shards(plan, options.max_shard_bytes), weights);
  write_generation_config(out, config, options.source_dir);
  copy_tokenizer(out, options.tokenizer_dir.empty() ? options.source_dir : options.tokenizer_dir);
  out.commit(config_json(config, plan, options.dtype, source.has_value()));
}

}  // namespace

void save_weights(const fs::path& dir, const model::Config& config, layers::Ctx& ctx,
                  std::span<Parameter* const> parameters, const SaveOptions& options) {
  WholeWeights weights(ctx, parameters);
  if (!weights.is_first()) return weights.serve();
  try {
    write_model(dir, config, weights, options);
  } catch (const std::exception& error) {
    weights.end(error.what());
    throw;
  }
  weights.end("");
}

}  // namespace temper::checkpoint
