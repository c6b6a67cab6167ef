#include "checkpoint/names.h"

#include <fmt/format.h>

#include <charconv>

#include "base/check.h"

namespace temper::checkpoint {
namespace {

constexpr auto kBF16 = ReleaseDType::kBF16, kF32 = ReleaseDType::kF32, kI64 = ReleaseDType::kI64,
               kFp8 = ReleaseDType::kFp8, kFp4 = ReleaseDType::kFp4;

// One tensor under its names, and its dtype in the release. saved: what transformers' save_pretrained writes where that
// is not the official name (its renaming rules run backwards, and not all of them have an inverse). alias: seen in
// older exports.
struct Row {
  std::string_view official, module;
  ReleaseDType dtype;
  std::string_view saved = {}, alias = {};
};

constexpr Row kModelRows[] = {
    {"embed.weight", "model.embed_tokens.weight", kBF16, "model.embed_tokens.weight"},
    {"norm.weight", "model.norm.weight", kBF16, "model.norm.weight"},
    {"hc_head_fn", "model.hc_head.hc_fn", kF32, "model.hc_head.hc_fn"},
    {"hc_head_base", "model.hc_head.hc_base", kF32, "model.hc_head.hc_base"},
    {"hc_head_scale", "model.hc_head.hc_scale", kF32, "model.hc_head.hc_scale"},
    {"head.weight", "lm_head.weight", kBF16},
};

// Names after "layers.N." and "mtp.0.".
constexpr Row kLayerRows[] = {
    {"attn_norm.weight", "input_layernorm.weight", kBF16},
    {"ffn_norm.weight", "post_attention_layernorm.weight", kBF16},
    {"hc_attn_fn", "attn_hc.fn", kF32},
    {"hc_attn_base", "attn_hc.base", kF32},
    {"hc_attn_scale", "attn_hc.scale", kF32},
    {"hc_ffn_fn", "ffn_hc.fn", kF32},
    {"hc_ffn_base", "ffn_hc.base", kF32},
    {"hc_ffn_scale", "ffn_hc.scale", kF32},
    {"attn.attn_sink", "self_attn.sinks", kF32},
    {"attn.wq_a.weight", "self_attn.q_a_proj.weight", kFp8},
    {"attn.q_norm.weight", "self_attn.q_a_norm.weight", kBF16},
    {"attn.wq_b.weight", "self_attn.q_b_proj.weight", kFp8},
    {"attn.wkv.weight", "self_attn.kv_proj.weight", kFp8},
    {"attn.kv_norm.weight", "self_attn.kv_norm.weight", kBF16, "attn.norm.weight"},
    {"attn.wo_a.weight", "self_attn.o_a_proj.weight", kFp8},
    {"attn.wo_b.weight", "self_attn.o_b_proj.weight", kFp8},
    {"attn.compressor.wkv.weight", "self_attn.compressor.kv_proj.weight", kBF16},
    {"attn.compressor.wgate.weight", "self_attn.compressor.gate_proj.weight", kBF16},
    {"attn.compressor.ape", "self_attn.compressor.position_bias", kF32},
    {"attn.compressor.norm.weight", "self_attn.compressor.kv_norm.weight", kBF16},
    {"attn.indexer.wq_b.weight", "self_attn.compressor.indexer.q_b_proj.weight", kFp8},
    {"attn.indexer.weights_proj.weight",
     "self_attn.compressor.indexer.scorer.weights_proj.weight",
     kBF16,
     {},
     "self_attn.compressor.indexer.weights_proj.weight"},
    {"attn.indexer.compressor.wkv.weight", "self_attn.compressor.indexer.kv_proj.weight", kBF16},
    {"attn.indexer.compressor.wgate.weight", "self_attn.compressor.indexer.gate_proj.weight", kBF16},
    {"attn.indexer.compressor.ape", "self_attn.compressor.indexer.position_bias", kF32},
    {"attn.indexer.compressor.norm.weight", "self_attn.compressor.indexer.kv_norm.weight", kBF16},
    {"ffn.gate.weight", "mlp.gate.weight", kBF16},
    {"ffn.gate.bias", "mlp.gate.e_score_correction_bias", kF32},
    {"ffn.gate.tid2eid", "mlp.gate.tid2eid", kI64},
    {"ffn.shared_experts.w1.weight", "mlp.shared_experts.gate_proj.weight", kFp8},
    {"ffn.shared_experts.w3.weight", "mlp.shared_experts.up_proj.weight", kFp8},
    {"ffn.shared_experts.w2.weight", "mlp.shared_experts.down_proj.weight", kFp8},
    {"ffn.experts.gate_up_proj", "mlp.experts.gate_up_proj", kFp4},
    {"ffn.experts.down_proj", "mlp.experts.down_proj", kFp4},
};

// Names after "mtp.0." besides those of a layer.
constexpr Row kMtpRows[] = {
    {"e_proj.weight", "e_proj.weight", kFp8},  {"h_proj.weight", "h_proj.weight", kFp8},
    {"enorm.weight", "enorm.weight", kBF16},   {"hnorm.weight", "hnorm.weight", kBF16},
    {"norm.weight", "norm.weight", kBF16},     {"hc_head_fn", "hc_head.hc_fn", kF32},
    {"hc_head_base", "hc_head.hc_base", kF32}, {"hc_head_scale", "hc_head.hc_scale", kF32},
};
constexpr std::string_view kMtp = "mtp.0.";

// The matrices of one expert; alias as in models that do not stack their experts.
struct ExpertRow {
  std::string_view official, alias, module;
  Part part;
};
constexpr ExpertRow kExpertRows[] = {
    {"w1.weight", "gate_proj.weight", "mlp.experts.gate_up_proj", Part::kGate},
    {"w3.weight", "up_proj.weight", "mlp.experts.gate_up_proj", Part::kUp},
    {"w2.weight", "down_proj.weight", "mlp.experts.down_proj", Part::kDown},
};

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// "12." at the front of text; leading zeros and more than six digits are no index.
std::optional<int64_t> take_index(std::string_view& text) {
  const size_t dot = text.find('.');
  if (dot == std::string_view::npos || dot == 0 || dot > 6 || (dot > 1 && text[0] == '0')) return std::nullopt;
  int64_t index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + dot, index);
  if (error != std::errc() || end != text.data() + dot || text[0] == '-') return std::nullopt;
  text.remove_prefix(dot + 1);
  return index;
}

bool matches(const Row& row, std::string_view leaf) {
  return leaf == row.official || leaf == row.module || (!row.saved.empty() && leaf == row.saved) ||
         (!row.alias.empty() && leaf == row.alias);
}

// prefix: of the parameter, "model.layers.3." or "mtp.0.".
std::optional<TensorName> parse_block_name(const std::string& prefix, std::string_view leaf) {
  for (const auto& row : kLayerRows)
    if (matches(row, leaf)) return TensorName{prefix + std::string(row.module)};
  if (!take_prefix(leaf, "ffn.experts.") && !take_prefix(leaf, "mlp.experts.")) return std::nullopt;
  const auto expert = take_index(leaf);
  if (!expert) return std::nullopt;
  for (const auto& row : kExpertRows)
    if (leaf == row.official || leaf == row.alias)
      return TensorName{prefix + std::string(row.module), *expert, row.part};
  return std::nullopt;
}

// The parameter's row and what stands before its leaf in official names ("layers.3.", "mtp.0." or nothing).
struct Found {
  const Row* row = nullptr;
  std::string prefix;
};
template <size_t N>
const Row* find_module(const Row (&rows)[N], std::string_view module) {
  for (const auto& row : rows)
    if (row.module == module) return &row;
  return nullptr;
}
Found find_row(std::string_view parameter) {
  if (const Row* row = find_module(kModelRows, parameter)) return {row, ""};
  std::string_view leaf = parameter;
  if (take_prefix(leaf, kMtp)) {
    const Row* row = find_module(kMtpRows, leaf);
    return {row ? row : find_module(kLayerRows, leaf), std::string(kMtp)};
  }
  const auto layer = take_prefix(leaf, "model.layers.") ? take_index(leaf) : std::nullopt;
  if (!layer) return {};
  return {find_module(kLayerRows, leaf), fmt::format("layers.{}.", *layer)};
}

bool take_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

}  // namespace

std::optional<TensorName> parse_tensor_name(std::string_view stored) {
  std::string_view name = stored;
  take_prefix(name, "model.");
  for (const auto& row : kModelRows) {
    std::string_view module = row.module;
    take_prefix(module, "model.");
    if (name == row.official || name == module) return TensorName{std::string(row.module)};
  }
  if (take_prefix(name, kMtp)) {
    for (const auto& row : kMtpRows)
      if (matches(row, name)) return TensorName{std::string(kMtp) + std::string(row.module)};
    return parse_block_name(std::string(kMtp), name);
  }
  const auto layer = take_prefix(name, "layers.") ? take_index(name) : std::nullopt;
  return layer ? parse_block_name(fmt::format("model.layers.{}.", *layer), name) : std::nullopt;
}

bool is_mtp_name(std::string_view stored) {
  take_prefix(stored, "model.");
  return stored.starts_with("mtp.");
}

bool is_mtp_copy(std::string_view stored) {
  take_prefix(stored, "model.");
  const bool is_copy = stored.ends_with("head.weight") || stored.find("emb") != std::string_view::npos;
  return is_copy && stored.starts_with(kMtp) && stored.find("markov") == std::string_view::npos;
}

bool is_foreign_mtp_name(std::string_view stored) {
  return is_mtp_name(stored) && !is_mtp_copy(stored) && !parse_tensor_name(stored) && !weight_of_scale(stored);
}

std::optional<std::string> weight_of_scale(std::string_view stored) {
  std::string weight;
  if (take_suffix(stored, ".scale") || take_suffix(stored, ".weight_scale") || take_suffix(stored, ".weight_scale_inv"))
    weight = std::string(stored) + ".weight";
  else if (take_suffix(stored, "_scale_inv"))
    weight = std::string(stored);
  if (weight.empty() || !parse_tensor_name(weight)) return std::nullopt;
  return weight;
}

std::string scale_name(std::string_view stored_weight) {
  std::string_view stem = stored_weight;
  CHECK(take_suffix(stem, ".weight"), std::string(stored_weight));
  return std::string(stem) + ".scale";
}

std::vector<StoredName> stored_names(const std::string& parameter, const Shape& shape, NameStyle style) {
  const Found found = find_row(parameter);
  CHECK(found.row != nullptr, parameter);
  const bool official = style == NameStyle::kOfficial || found.prefix == kMtp;
  if (style == NameStyle::kModules && !official) return {{parameter, {parameter}}};
  const std::string prefix = found.prefix.empty() || official ? found.prefix : "model." + found.prefix;
  std::vector<StoredName> names;
  if (found.row->module.starts_with("mlp.experts.")) {
    for (int64_t expert = 0; expert < shape[0]; ++expert)
      for (const auto& row : kExpertRows)
        if (row.module == found.row->module)
          names.push_back(
              {fmt::format("{}ffn.experts.{}.{}", prefix, expert, row.official), {parameter, expert, row.part}});
    return names;
  }
  const auto leaf = official || found.row->saved.empty() ? found.row->official : found.row->saved;
  return {{prefix + std::string(leaf), {parameter}}};
}

View part_of(const View& parameter, const TensorName& name) {
  if (name.part == Part::kWhole) return parameter;
  CHECK(parameter.rank() == 3 && name.expert >= 0 && name.expert < parameter.dim(0), name.parameter, name.expert);
  const int64_t num_rows = parameter.dim(1);
  View rows = parameter.slice(0, name.expert, name.expert + 1);
  if (name.part != Part::kDown) {
    CHECK(num_rows % 2 == 0, name.parameter, num_rows);
    rows = name.part == Part::kGate ? rows.slice(1, 0, num_rows / 2) : rows.slice(1, num_rows / 2, num_rows);
  }
  return rows.reshape({rows.dim(1), rows.dim(2)});
}

bool is_kept_in_fp32(std::string_view parameter) {
  for (const std::string_view part :
       {"norm.weight", "layernorm.weight", ".sinks", ".position_bias", ".e_score_correction_bias"})
    if (parameter.ends_with(part)) return true;
  for (const std::string_view part : {".attn_hc.", ".ffn_hc.", ".hc_head."})
    if (parameter.find(part) != std::string_view::npos) return true;
  return false;
}

ReleaseDType release_dtype(std::string_view parameter) {
  const Found found = find_row(parameter);
  CHECK(found.row != nullptr, std::string(parameter));
  return found.row->dtype;
}

}  // namespace temper::checkpoint
