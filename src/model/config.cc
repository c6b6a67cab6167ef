#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "model/config_fields.h"

namespace temper::model {
namespace {

constexpr std::string_view kSliding = "sliding_attention", kCsa = "compressed_sparse_attention",
                           kHca = "heavily_compressed_attention";
constexpr std::string_view kLayerTypes[] = {kSliding, kCsa, kHca};

int64_t read_token_id(const Fields& fields, std::string_view name, int64_t otherwise) {
  const Json* value = fields.find(name);
  if (!value) return fields.is_null(name) ? -1 : otherwise;
  if (value->is_array() && !value->empty())
    value = &value->front();  // transformers allows several ends; ours is the first
  if (!value->is_number_integer()) fields.wrong_type(name, *value, "a token id or a list of token ids");
  return value->get<int64_t>();
}

std::vector<std::string> read_strings(const Fields& fields, std::string_view name, size_t count) {
  const Json& value = *fields.find(name);
  if (!value.is_array()) fields.wrong_type(name, value, "a list of strings");
  if (value.size() != count)
    fail(ErrorCode::kInvalidArgument, "{}: {} has {} entries, num_hidden_layers = {}: they must be equal",
         fields.origin(), name, value.size(), count);
  std::vector<std::string> out;
  for (const Json& entry : value) {
    if (!entry.is_string()) fields.wrong_type(name, entry, "a list of strings");
    out.push_back(entry.get<std::string>());
  }
  return out;
}

std::optional<int64_t> read_rate(const Fields& fields, std::string_view type, std::string_view scalar) {
  const Json* rates = fields.find("compress_rates");
  std::optional<int64_t> rate;
  if (rates) {
    const Fields group(*rates, fields.origin() + ": compress_rates");
    group.refuse_misspellings(kLayerTypes);
    rate = group.integer(type);
  }
  const auto legacy = fields.integer(scalar);  // overrides the entry, as in transformers
  return legacy ? legacy : rate;
}

// layer_types, csa_rate and hca_rate. A ratio of 0 is a sliding layer, 4 or the CSA rate a CSA layer, any other an HCA
// layer; 128 is also the label of HCA layers whose rate compress_rates gives, as in transformers.
void read_layer_types(const Fields& fields, Config& config) {
  const auto csa_rate = read_rate(fields, kCsa, "compress_rate_csa"),
             hca_rate = read_rate(fields, kHca, "compress_rate_hca");
  config.csa_rate = csa_rate.value_or(4);
  config.hca_rate = hca_rate.value_or(128);
  const auto num_layers = static_cast<size_t>(config.num_hidden_layers);
  const Json* ratios = fields.find("compress_ratios");
  std::vector<AttentionKind> from_ratios;
  if (ratios) {
    if (!ratios->is_array()) fields.wrong_type("compress_ratios", *ratios, "a list of integers");
    const auto most = num_layers + static_cast<size_t>(std::max<int64_t>(1, config.num_nextn_predict_layers));
    if (ratios->size() < num_layers || ratios->size() > most)
      fail(ErrorCode::kInvalidArgument,
           "{}: compress_ratios has {} entries; num_hidden_layers = {} and num_nextn_predict_layers = {} ask for one "
           "each",
           fields.origin(), ratios->size(), num_layers, config.num_nextn_predict_layers);
    std::optional<int64_t> first_hca;
    for (size_t i = 0; i < num_layers; ++i) {
      const Json& entry = (*ratios)[i];
      if (!entry.is_number_integer() || entry.get<int64_t>() < 0)
        fields.wrong_type("compress_ratios", entry, "a list of integers >= 0");
      const auto ratio = entry.get<int64_t>();
      const auto kind = ratio == 0                               ? AttentionKind::kSliding
                        : ratio == 4 || ratio == config.csa_rate ? AttentionKind::kCsa
                                                                 : AttentionKind::kHca;
      from_ratios.push_back(kind);
      if (kind != AttentionKind::kHca) continue;
      if (ratio != first_hca.value_or(ratio))
        fail(ErrorCode::kInvalidArgument, "{}: compress_ratios has the HCA rates {} and {}; a model has one",
             fields.origin(), *first_hca, ratio);
      if (hca_rate && ratio != 128 && ratio != *hca_rate)
        fail(ErrorCode::kInvalidArgument,
             "{}: compress_ratios says {} in layer {}, but the HCA rate of compress_rates is {}", fields.origin(),
             ratio, i, *hca_rate);
      first_hca = ratio;
    }
    if (first_hca && !hca_rate) config.hca_rate = *first_hca;
  }
  if (!fields.find("layer_types")) {
    if (!ratios)
      fail(ErrorCode::kInvalidArgument,
           "{}: neither layer_types nor compress_ratios is given; the order of attention kinds has no safe default: "
           "write one "
           "entry per layer",
           fields.origin());
    config.layer_types = from_ratios;
    return;
  }
  for (const auto& name : read_strings(fields, "layer_types", num_layers)) {
    if (name != kSliding && name != kCsa && name != kHca)
      fail(ErrorCode::kInvalidArgument, "{}: layer_types has \"{}\"; it must be {}, {} or {}", fields.origin(), name,
           kSliding, kCsa, kHca);
    config.layer_types.push_back(name == kSliding ? AttentionKind::kSliding
                                 : name == kCsa   ? AttentionKind::kCsa
                                                  : AttentionKind::kHca);
  }
  if (ratios && from_ratios != config.layer_types)
    fail(ErrorCode::kInvalidArgument, "{}: layer_types and compress_ratios name different kinds of layers",
         fields.origin());
}

void read_mlp_types(const Fields& fields, Config& config) {
  const int64_t num_layers = config.num_hidden_layers;
  const auto num_hash = fields.integer("num_hash_layers");
  const int64_t first_moe = std::clamp<int64_t>(num_hash.value_or(3), 0, num_layers);  // 3 as in both released models
  for (int64_t i = 0; i < num_layers; ++i) config.is_hash_moe.push_back(i < first_moe);
  if (!fields.find("mlp_layer_types")) return;
  std::vector<bool> named;
  for (const auto& name : read_strings(fields, "mlp_layer_types", static_cast<size_t>(num_layers))) {
    if (name != "hash_moe" && name != "moe")
      fail(ErrorCode::kInvalidArgument, "{}: mlp_layer_types has \"{}\"; it must be hash_moe or moe", fields.origin(),
           name);
    named.push_back(name == "hash_moe");
  }
  if (num_hash && named != config.is_hash_moe)
    fail(ErrorCode::kInvalidArgument, "{}: mlp_layer_types disagrees with num_hash_layers = {}", fields.origin(),
         *num_hash);
  config.is_hash_moe = named;
}

// transformers cuts head_dim * partial_rotary_factor to an integer; so do we. -1: it is none.
int64_t rotary_dim(const Config& config, double factor) {
  const double product = static_cast<double>(config.head_dim) * factor;
  return std::isfinite(product) && std::abs(product) < 1e9 ? static_cast<int64_t>(product) : -1;
}

void read_rotary_dim(const Fields& fields, Config& config) {
  const auto given = fields.integer("qk_rope_head_dim");
  const double factor = fields.number("partial_rotary_factor", 64.0 / 512);
  const int64_t derived = rotary_dim(config, factor);
  if (given && fields.find("partial_rotary_factor") && derived != *given)
    fail(ErrorCode::kInvalidArgument, "{}: qk_rope_head_dim = {} but head_dim {} * partial_rotary_factor {} = {}",
         fields.origin(), *given, config.head_dim, factor, derived);
  config.qk_rope_head_dim = given.value_or(derived);
}

// One group of rotary parameters. nested: the group stands in rope_parameters.{main, compress}, where transformers
// would scale cos and sin unless attention_factor is 1; the flat official spelling never scales them (architecture
// page 4.2).
Rope read_rope(const Fields& group, double theta, const Config& config, bool nested) {
  group.refuse_misspellings(known_rope_fields());
  Rope rope;
  rope.rope_theta = theta;
  auto type = group.string("rope_type");
  if (!type) type = group.string("type");
  const std::string name = type.value_or("default");
  if (name != "default" && name != "yarn")
    fail(ErrorCode::kUnsupported, "{}: rope type \"{}\" is not supported; use default or yarn", group.origin(), name);
  const int64_t rotary = rotary_dim(config, group.number("partial_rotary_factor", 1.0));
  if (group.find("partial_rotary_factor") && rotary != config.qk_rope_head_dim)
    fail(ErrorCode::kInvalidArgument, "{}: partial_rotary_factor rotates {} channels, qk_rope_head_dim = {}",
         group.origin(), rotary, config.qk_rope_head_dim);
  if (name == "default") return rope;
  rope.yarn = true;
  rope.original_max_position_embeddings = group.required("original_max_position_embeddings");
  if (rope.original_max_position_embeddings < 1)
    fail(ErrorCode::kInvalidArgument, "{}: original_max_position_embeddings = {} must be positive", group.origin(),
         rope.original_max_position_embeddings);
  rope.factor = group.number("factor", static_cast<double>(config.max_position_embeddings) /
                                           static_cast<double>(rope.original_max_position_embeddings));
  rope.beta_fast = group.number("beta_fast", 32);
  rope.beta_slow = group.number("beta_slow", 1);
  if (const double scale = group.number("attention_factor", nested ? 0 : 1); scale != 1)
    fail(ErrorCode::kUnsupported,
         "{}: attention_factor must be given and be 1 with yarn: V4 does not scale cos and sin", group.origin());
  if (const Json* truncate = group.find("truncate"); truncate && *truncate != true)
    group.wrong_type("truncate", *truncate, "true");
  return rope;
}

void read_ropes(const Fields& fields, Config& config) {
  const double main_theta = fields.number("rope_theta", 10000),
               compress_theta = fields.number("compress_rope_theta", 160000);
  config.main_rope.rope_theta = main_theta;
  config.compress_rope.rope_theta = compress_theta;
  // transformers lets rope_scaling stand in for rope_parameters; nested groups win over flat keys.
  const bool scaling = fields.find("rope_scaling") && !fields.find("rope_scaling")->empty();
  const std::string_view field = scaling ? "rope_scaling" : "rope_parameters";
  if (!fields.find(field)) return;
  const std::string origin = fmt::format("{}: {}", fields.origin(), field);
  const Fields parameters(*fields.find(field), origin);
  parameters.refuse_misspellings(known_rope_fields());
  const Json *main = parameters.find("main"), *compress = parameters.find("compress");
  if (main && main->is_object() && compress && compress->is_object()) {
    const Fields main_group(*main, origin + ".main"), compress_group(*compress, origin + ".compress");
    config.main_rope = read_rope(main_group, main_group.number("rope_theta", main_theta), config, true);
    config.compress_rope = read_rope(compress_group, compress_group.number("rope_theta", compress_theta), config, true);
    return;
  }
  if (main || compress) fail(ErrorCode::kInvalidArgument, "{}: main and compress must both be objects", origin);
  config.compress_rope = read_rope(parameters, compress_theta, config, false);
}

void read_sizes(const Fields& fields, Config& config) {
  config.vocab_size = fields.required("vocab_size");
  config.hidden_size = fields.required("hidden_size");
  config.num_hidden_layers = fields.required("num_hidden_layers");
  config.num_attention_heads = fields.required("num_attention_heads");
  config.head_dim = fields.required("head_dim");
  config.q_lora_rank = fields.required("q_lora_rank");
  config.o_groups = fields.required("o_groups");
  config.o_lora_rank = fields.required("o_lora_rank");
  config.sliding_window = fields.required("sliding_window");
  config.n_routed_experts = fields.required("n_routed_experts", "num_local_experts");
  config.num_experts_per_tok = fields.required("num_experts_per_tok");
  config.moe_intermediate_size = fields.required("moe_intermediate_size", "intermediate_size");
  config.index_n_heads = fields.integer("index_n_heads").value_or(0);
  config.index_head_dim = fields.integer("index_head_dim").value_or(0);
  config.index_topk = fields.integer("index_topk").value_or(0);
  config.max_position_embeddings = fields.integer("max_position_embeddings").value_or(1048576);
  config.num_nextn_predict_layers = fields.integer("num_nextn_predict_layers").value_or(0);
  config.hc_mult = fields.integer("hc_mult").value_or(4);
  config.hc_sinkhorn_iters = fields.integer("hc_sinkhorn_iters").value_or(20);
  config.hc_eps = fields.number("hc_eps", 1e-6);
  config.rms_norm_eps = fields.number("rms_norm_eps", 1e-6);
  config.initializer_range = fields.number("initializer_range", 0.02);
  config.swiglu_limit = fields.number("swiglu_limit", 10);
  config.routed_scaling_factor = fields.number("routed_scaling_factor", 1.5);
  config.bos_token_id = read_token_id(fields, "bos_token_id", 0);
  config.eos_token_id = read_token_id(fields, "eos_token_id", 1);
}

}  // namespace

std::vector<int64_t> Config::compress_rates() const {
  std::set<int64_t> rates;
  for (int64_t layer = 0; layer < num_hidden_layers; ++layer)
    if (const int64_t rate = compress_rate(layer); rate > 0) rates.insert(rate);
  return {rates.begin(), rates.end()};
}

Config parse_config(const std::string& json_text, const std::string& origin) {
  Config config;
  config.source = json_text;
  const Json json = parse_json<Json>(json_text, origin);
  const Fields fields(json, origin);
  fields.refuse_misspellings(known_config_fields());
  read_sizes(fields, config);
  // The lists are read against the number of layers, so it is bounded first.
  if (config.num_hidden_layers < 1 || config.num_hidden_layers > kMaxLayers)
    fail(ErrorCode::kInvalidArgument, "{}: num_hidden_layers = {} must be from 1 to {}", origin,
         config.num_hidden_layers, kMaxLayers);
  read_layer_types(fields, config);
  read_mlp_types(fields, config);
  read_rotary_dim(fields, config);
  read_ropes(fields, config);
  validate(config, origin);
  return config;
}

}  // namespace temper::model
