#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/convert.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/save_dir.h"
#include "checkpoint/side_files.h"
#include "checkpoint/tensor_dir.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;
using layers::Parameter;

constexpr int64_t kChunkElements = 1 << 20;

// One tensor of the files to be written: a part of a parameter, or bytes carried over from the source.
struct Piece {
  TensorInfo info;
  View from;
  const std::byte* bytes = nullptr;  // instead of from
};

// The tensors of source_dir by the parameter that they fill.
using SourcePieces = std::map<std::string, std::vector<std::pair<TensorName, const StoredTensor*>>>;

FileDType choose_dtype(const Parameter& parameter, const StoredTensor* source, SaveDType wanted) {
  const FileDType own = file_dtype(parameter.dtype);
  const bool is_integer = own == FileDType::kI64 || own == FileDType::kI32;
  if (source && is_convertible(source->dtype, own) && (is_integer || wanted == SaveDType::kSource))
    return source->dtype;
  if (is_integer) return FileDType::kI64;
  return wanted == SaveDType::kBF16 && !is_kept_in_fp32(parameter.name) ? FileDType::kBF16 : FileDType::kF32;
}

Piece make_piece(const Parameter& parameter, const std::string& stored, const TensorName& name, FileDType dtype) {
  Piece piece;
  piece.from = part_of(parameter.master.defined() ? parameter.master : parameter.value, name);
  piece.info = {stored, dtype, {}};
  for (int i = 0; i < piece.from.rank(); ++i) piece.info.shape.push_back(piece.from.dim(i));
  return piece;
}

// A tensor that the run does not train and holds in fewer bits than the source has.
bool is_rounded_copy(const Parameter& parameter, const StoredTensor& source) {
  return !parameter.trainable && !parameter.master.defined() &&
         dtype_bytes(parameter.dtype) < file_dtype_bytes(source.dtype) && is_convertible(source.dtype, FileDType::kF32);
}

// Whether the source's tensors are exactly the parameter.
bool covers(const SourcePieces::mapped_type& source, const Parameter& parameter) {
  int64_t size = 0;
  for (const auto& [name, stored] : source) {
    const bool is_part = parameter.shape.rank() == 3 && name.expert < parameter.shape[0];
    if (name.part != Part::kWhole && !is_part) return false;
    if (part_of(View(nullptr, parameter.dtype, parameter.shape), name).size() != stored->size()) return false;
    size += stored->size();
  }
  return size == parameter.shape.size();
}

// Every tensor to be written, in the order of the parameters; then what is carried over.
std::vector<Piece> plan_pieces(std::span<Parameter* const> parameters, const TensorDir* source, SaveDType wanted,
                               std::optional<NameStyle> style) {
  SourcePieces by_parameter;
  std::vector<Piece> pieces, carried;
  if (source)
    for (const auto& [stored, file] : source->items()) {
      if (is_mtp_name(stored->name))
        carried.push_back({{stored->name, stored->dtype, stored->shape}, {}, stored->data});
      else if (const auto name = parse_tensor_name(stored->name))
        by_parameter[name->parameter].emplace_back(*name, stored);
    }
  for (const Parameter* parameter : parameters) {
    const auto at = by_parameter.find(parameter->name);
    const bool has_source = at != by_parameter.end() && covers(at->second, *parameter);
    if (has_source && !style) {
      for (const auto& [name, stored] : at->second) {
        pieces.push_back(make_piece(*parameter, stored->name, name, choose_dtype(*parameter, stored, wanted)));
        if (is_rounded_copy(*parameter, *stored) && pieces.back().info.dtype == stored->dtype)
          pieces.back().bytes = stored->data;
      }
      continue;
    }
    const StoredTensor* example = has_source ? at->second.front().second : nullptr;
    const FileDType dtype = choose_dtype(*parameter, example, wanted);
    for (const auto& [stored, name] :
         stored_names(parameter->name, parameter->shape, style.value_or(NameStyle::kTransformers)))
      pieces.push_back(make_piece(*parameter, stored, name, dtype));
  }
  pieces.insert(pieces.end(), carried.begin(), carried.end());
  return pieces;
}

// Cuts the list into files of at most max_bytes, except where one tensor is larger.
std::vector<std::vector<Piece>> cut_shards(const std::vector<Piece>& pieces, int64_t max_bytes) {
  std::vector<std::vector<Piece>> shards;
  int64_t num_bytes = 0;
  for (const auto& piece : pieces) {
    if (shards.empty() || num_bytes + piece.info.num_bytes() > max_bytes) {
      shards.emplace_back();
      num_bytes = 0;
    }
    num_bytes += piece.info.num_bytes();
    shards.back().push_back(piece);
  }
  for (auto& shard : shards)  // wide elements first: every tensor is then aligned to its elements
    std::stable_sort(shard.begin(), shard.end(), [](const Piece& a, const Piece& b) {
      return file_dtype_bytes(a.info.dtype) > file_dtype_bytes(b.info.dtype);
    });
  return shards;
}

void write_shard(const fs::path& path, const std::vector<Piece>& shard, layers::Ctx& ctx) {
  std::vector<TensorInfo> infos;
  infos.reserve(shard.size());
  for (const auto& piece : shard) infos.push_back(piece.info);
  SafetensorsWriter writer(path, infos);
  std::vector<std::byte> held, converted;
  for (const auto& piece : shard) {
    if (piece.bytes) {
      writer.write(piece.bytes, piece.info.num_bytes());
      continue;
    }
    const View flat = piece.from.reshape({piece.from.size()});
    for (int64_t begin = 0; begin < flat.size(); begin += kChunkElements) {
      const int64_t end = std::min(begin + kChunkElements, flat.size());
      held.resize(static_cast<size_t>((end - begin) * dtype_bytes(flat.dtype)));
      converted.resize(static_cast<size_t>((end - begin) * file_dtype_bytes(piece.info.dtype)));
      ctx.device.copy_to_host(ctx.stream, held.data(), flat.slice(0, begin, end));
      convert_elements(converted.data(), piece.info.dtype, held.data(), file_dtype(flat.dtype), end - begin);
      writer.write(converted.data(), static_cast<int64_t>(converted.size()));
    }
  }
  writer.commit();
}

void write_shards(SaveDir& out, const std::vector<std::vector<Piece>>& shards, layers::Ctx& ctx) {
  if (shards.size() == 1) return write_shard(out.stage(std::string(kSingleFileName)), shards.front(), ctx);
  nlohmann::json weight_map;
  int64_t total_bytes = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    for (const auto& piece : shards[i]) {
      weight_map[piece.info.name] = name;
      total_bytes += piece.info.num_bytes();
    }
    write_shard(out.stage(name), shards[i], ctx);
  }
  nlohmann::ordered_json index;
  index["metadata"] = {{"total_size", total_bytes}};
  index["weight_map"] = weight_map;
  write_file_atomically(out.stage(std::string(kIndexFileName)), index.dump(2) + "\n");
}

void write_generation_config(SaveDir& out, const model::Config& config, const fs::path& source_dir) {
  constexpr const char* kName = "generation_config.json";
  if (!source_dir.empty() && fs::exists(source_dir / kName))
    return write_file_atomically(out.stage(kName), read_file(source_dir / kName));
  nlohmann::ordered_json json = {{"_from_model_config", true}};
  if (config.bos_token_id >= 0) json["bos_token_id"] = config.bos_token_id;
  if (config.eos_token_id >= 0) json["eos_token_id"] = config.eos_token_id;
  write_file_atomically(out.stage(kName), json.dump(2) + "\n");
}

void copy_tokenizer(SaveDir& out, const fs::path& from) {
  if (from.empty()) return;
  for (const auto& name : tokenizer_files(from))
    write_file_atomically(out.stage(name.string()), read_file(from / name));
}

// As torch spells it; empty: what the source says.
std::string torch_dtype(SaveDType dtype) {
  return dtype == SaveDType::kSource ? "" : dtype == SaveDType::kBF16 ? "bfloat16" : "float32";
}

}  // namespace

void save_weights(const fs::path& dir, const model::Config& config, layers::Ctx& ctx,
                  std::span<Parameter* const> parameters, const SaveOptions& options) {
  std::optional<TensorDir> source;
  if (!options.source_dir.empty() && TensorDir::exists(options.source_dir)) source.emplace(options.source_dir);
  const SaveDType dtype = options.dtype == SaveDType::kSource && !source ? SaveDType::kF32 : options.dtype;
  const auto pieces = plan_pieces(parameters, source ? &*source : nullptr, dtype, options.style);
  SaveDir out(dir, options.overwrite);
  write_shards(out, cut_shards(pieces, options.max_shard_bytes), ctx);
  write_generation_config(out, config, options.source_dir);
  copy_tokenizer(out, options.tokenizer_dir.empty() ? options.source_dir : options.tokenizer_dir);
  out.commit(make_config_json(config, torch_dtype(dtype), Quantisation::kNone));
}

}  // namespace temper::checkpoint
