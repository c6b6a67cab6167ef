#include "checkpoint/rewrite_receipt.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

namespace temper::checkpoint {
namespace {

using Json = nlohmann::ordered_json;

// rows: of a part of the tensor; begin == end: the tensor is whole.
Json tensor_json(const TensorInfo& tensor, const std::string& file, uint64_t hash, int64_t begin = 0, int64_t end = 0) {
  Json json = {{"name", tensor.name},
               {"file", file},
               {"dtype", file_dtype_name(tensor.dtype)},
               {"shape", tensor.shape},
               {"xxh3", hash_text(hash)}};
  if (begin != end) json["rows"] = {begin, end};
  return json;
}

std::string file_name(const SafetensorsFile& file) { return file.path().filename().string(); }

int64_t num_rows_of(const TensorInfo& tensor) {
  return EncodedTensor{nullptr, nullptr, Encoding::kPlain, tensor.shape}.num_rows();
}

std::optional<uint64_t> read_hash(const Json& line, const char* side) {
  if (!line.is_object() || !line.contains(side) || !line[side].is_object()) return std::nullopt;
  const auto at = line[side].find("xxh3");
  if (at == line[side].end() || !at->is_string()) return std::nullopt;
  const auto& text = at->get_ref<const std::string&>();
  uint64_t hash = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), hash, 16);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return hash;
}

const char* dtype_option(RewriteDType dtype) {
  switch (dtype) {
    case RewriteDType::kBF16:
      return "bf16";
    case RewriteDType::kF32:
      return "fp32";
    case RewriteDType::kOfficial:
      return "official";
    case RewriteDType::kSource:
      return "source";
  }
  return "";
}

Json options_json(const RewriteOptions& options) {
  constexpr const char* kStyles[] = {"transformers", "modules", "official"};
  return {{"dtype", dtype_option(options.dtype)},
          {"names", kStyles[static_cast<int>(options.names())]},
          {"allow_missing", options.allow_missing},
          {"max_shard_bytes", options.max_shard_bytes}};
}

}  // namespace

std::string receipt_line(const RewritePlan& plan, const TargetFile& file, const RewritePiece& piece,
                         const PieceHashes& hashes) {
  const TargetTensor& target = plan.targets[piece.target];
  const int64_t num_rows = piece.row_end - piece.row_begin;
  const bool is_split = num_rows < piece.source.num_rows(), is_stacked = num_rows < num_rows_of(target.info);
  Json line;
  line["source"] = tensor_json(*piece.source.weight, file_name(*piece.file), hashes.source,
                               is_split ? piece.row_begin : 0, is_split ? piece.row_end : 0);
  if (piece.source.scale)
    line["source_scale"] = tensor_json(*piece.source.scale, file_name(*piece.scale_file), hashes.source_scale);
  line["destination"] = tensor_json(target.info, file.name, hashes.target, is_stacked ? piece.target_row : 0,
                                    is_stacked ? piece.target_row + num_rows : 0);
  if (piece.encoding != Encoding::kPlain)
    line["destination_scale"] = tensor_json(plan.targets[piece.target_scale].info, file.name, hashes.target_scale);
  std::string action = rewrite_action_name(piece.action);
  if (is_split || is_stacked) {
    const std::string layout = is_split ? "split" : "stacked";
    action = piece.action == RewriteAction::kCopied ? layout : action + ", " + layout;
  }
  line["action"] = action;
  return line.dump();
}

std::string dropped_line(const StoredTensor& tensor, const SafetensorsFile& file, uint64_t hash) {
  const Json line = {{"source", tensor_json(tensor, file_name(file), hash)}, {"action", "dropped"}};
  return line.dump();
}

std::vector<PieceHashes> read_target_hashes(const std::string& lines) {
  std::vector<PieceHashes> hashes;
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = std::min(lines.find('\n', begin), lines.size());
    const Json line = Json::parse(lines.begin() + static_cast<int64_t>(begin),
                                  lines.begin() + static_cast<int64_t>(end), nullptr, false);
    const auto target = read_hash(line, "destination");
    if (!target) return {};
    PieceHashes piece;
    piece.target = *target;
    piece.target_scale = read_hash(line, "destination_scale").value_or(0);
    hashes.push_back(piece);
    begin = end + 1;
  }
  return hashes;
}

std::string make_receipt(const std::filesystem::path& source, const RewriteOptions& options,
                         const RewriteReport& report, const std::string& lines) {
  Json head;
  head["temper"] = TEMPER_VERSION;
  head["source"] = std::filesystem::weakly_canonical(source).string();
  head["options"] = options_json(options);
  head["missing"] = report.missing;
  head["totals"] = {{"tensors", report.num_tensors},
                    {"source_bytes", report.source_bytes},
                    {"destination_bytes", report.destination_bytes},
                    {"files", report.num_files},
                    {"copied", report.num_copied},
                    {"dequantised", report.num_dequantised},
                    {"quantised", report.num_quantised},
                    {"cast", report.num_cast},
                    {"dropped", report.num_dropped}};
  std::string text = head.dump(2);
  text.resize(text.size() - 2);  // "\n}"
  text += ",\n  \"tensors\": [";
  // Lines are whole entries: they become elements of the list without being parsed again.
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = lines.find('\n', begin);
    text += fmt::format("{}\n    {}", begin == 0 ? "" : ",", std::string_view(lines).substr(begin, end - begin));
    begin = end + 1;
  }
  return text + "\n  ]\n}\n";
}

std::string plan_text(const std::filesystem::path& source, const RewriteOptions& options, const RewritePlan& plan) {
  std::set<std::filesystem::path> files = {source / "config.json"};
  for (const auto& file : plan.files)
    for (const auto& piece : file.pieces) {
      files.insert(piece.file->path());
      if (piece.scale_file) files.insert(piece.scale_file->path());
    }
  Json json;
  json["temper"] = TEMPER_VERSION;
  json["source"] = std::filesystem::weakly_canonical(source).string();
  json["options"] = options_json(options);
  for (const auto& file : files)
    json["files"][file.filename().string()] = {
        {"bytes", std::filesystem::file_size(file)},
        {"time_ns", std::chrono::nanoseconds(std::filesystem::last_write_time(file).time_since_epoch()).count()}};
  return json.dump(2) + "\n";
}

}  // namespace temper::checkpoint
