#include "checkpoint/names.h"

#include <fmt/format.h>

#include <charconv>

#include "base/check.h"

namespace temper::checkpoint {
namespace {

// One tensor under its names. saved: what transformers' save_pretrained writes where that is not the official name (its
// renaming rules run backwards, and not all of them have an inverse). alias: seen in older exports.
struct Row {
  std::string_view official, module, saved = {}, alias = {};
};

constexpr Row kModelRows[] = {
    {"embed.weight", "model.embed_tokens.weight", "model.embed_tokens.weight"},
    {"norm.weight", "model.norm.weight", "model.norm.weight"},
    {"hc_head_fn", "model.hc_head.hc_fn", "model.hc_head.hc_fn"},
    {"hc_head_base", "model.hc_head.hc_base", "model.hc_head.hc_base"},
    {"hc_head_scale", "model.hc_head.hc_scale", "model.hc_head.hc_scale"},
    {"head.weight", "lm_head.weight"},
};

// Names after "layers.N.".
constexpr Row kLayerRows[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"hc_attn_fn", "attn_hc.fn"},
    {"hc_attn_base", "attn_hc.base"},
    {"hc_attn_scale", "attn_hc.scale"},
    {"hc_ffn_fn", "ffn_hc.fn"},
    {"hc_ffn_base", "ffn_hc.base"},
    {"hc_ffn_scale", "ffn_hc.scale"},
    {"attn.attn_sink", "self_attn.sinks"},
    {"attn.wq_a.weight", "self_attn.q_a_proj.weight"},
    {"attn.q_norm.weight", "self_attn.q_a_norm.weight"},
    {"attn.wq_b.weight", "self_attn.q_b_proj.weight"},
    {"attn.wkv.weight", "self_attn.kv_proj.weight"},
    {"attn.kv_norm.weight", "self_attn.kv_norm.weight", "attn.norm.weight"},
    {"attn.wo_a.weight", "self_attn.o_a_proj.weight"},
    {"attn.wo_b.weight", "self_attn.o_b_proj.weight"},
    {"attn.compressor.wkv.weight", "self_attn.compressor.kv_proj.weight"},
    {"attn.compressor.wgate.weight", "self_attn.compressor.gate_proj.weight"},
    {"attn.compressor.ape", "self_attn.compressor.position_bias"},
    {"attn.compressor.norm.weight", "self_attn.compressor.kv_norm.weight"},
    {"attn.indexer.wq_b.weight", "self_attn.compressor.indexer.q_b_proj.weight"},
    {"attn.indexer.weights_proj.weight",
     "self_attn.compressor.indexer.scorer.weights_proj.weight",
     {},
     "self_attn.compressor.indexer.weights_proj.weight"},
    {"attn.indexer.compressor.wkv.weight", "self_attn.compressor.indexer.kv_proj.weight"},
    {"attn.indexer.compressor.wgate.weight", "self_attn.compressor.indexer.gate_proj.weight"},
    {"attn.indexer.compressor.ape", "self_attn.compressor.indexer.position_bias"},
    {"attn.indexer.compressor.norm.weight", "self_attn.compressor.indexer.kv_norm.weight"},
    {"ffn.gate.weight", "mlp.gate.weight"},
    {"ffn.gate.bias", "mlp.gate.e_score_correction_bias"},
    {"ffn.gate.tid2eid", "mlp.gate.tid2eid"},
    {"ffn.shared_experts.w1.weight", "mlp.shared_experts.gate_proj.weight"},
    {"ffn.shared_experts.w3.weight", "mlp.shared_experts.up_proj.weight"},
    {"ffn.shared_experts.w2.weight", "mlp.shared_experts.down_proj.weight"},
    {"ffn.experts.gate_up_proj", "mlp.experts.gate_up_proj"},
    {"ffn.experts.down_proj", "mlp.experts.down_proj"},
};

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

std::optional<TensorName> parse_layer_name(int64_t layer, std::string_view leaf) {
  for (const auto& row : kLayerRows)
    if (matches(row, leaf)) return TensorName{fmt::format("model.layers.{}.{}", layer, row.module)};
  if (!take_prefix(leaf, "ffn.experts.") && !take_prefix(leaf, "mlp.experts.")) return std::nullopt;
  const auto expert = take_index(leaf);
  if (!expert) return std::nullopt;
  for (const auto& row : kExpertRows)
    if (leaf == row.official || leaf == row.alias)
      return TensorName{fmt::format("model.layers.{}.{}", layer, row.module), *expert, row.part};
  return std::nullopt;
}

// The parameter's row and what stands before its leaf ("model.layers.3." or nothing).
struct Found {
  const Row* row;
  std::string layer_prefix;  // "layers.3." or empty
};
Found find_row(std::string_view parameter) {
  for (const auto& row : kModelRows)
    if (row.module == parameter) return {&row, ""};
  std::string_view leaf = parameter;
  std::optional<int64_t> layer;
  if (take_prefix(leaf, "model.layers.")) layer = take_index(leaf);
  if (layer)
    for (const auto& row : kLayerRows)
      if (row.module == leaf) return {&row, fmt::format("layers.{}.", *layer)};
  return {nullptr, ""};
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
  if (!take_prefix(name, "layers.")) return std::nullopt;
  const auto layer = take_index(name);
  return layer ? parse_layer_name(*layer, name) : std::nullopt;
}

bool is_mtp_name(std::string_view stored) {
  take_prefix(stored, "model.");
  return stored.starts_with("mtp.");
}

bool is_quantisation_scale(std::string_view stored) {
  return stored.ends_with(".scale") || stored.ends_with("_scale_inv") || stored.ends_with(".weight_scale");
}

std::vector<StoredName> stored_names(const std::string& parameter, const Shape& shape, NameStyle style) {
  const Found found = find_row(parameter);
  CHECK(found.row != nullptr, parameter);
  if (style == NameStyle::kModules) return {{parameter, {parameter}}};
  const bool official = style == NameStyle::kOfficial;
  const std::string prefix =
      found.layer_prefix.empty() || official ? found.layer_prefix : "model." + found.layer_prefix;
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

}  // namespace temper::checkpoint
