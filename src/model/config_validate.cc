#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "model/config.h"
#include "model/config_fields.h"

namespace temper::model {
namespace {

// Fields whose only supported value is fixed by the architecture; absent means that value.
struct FixedField {
  const char* name;
  Json value;
  const char* reason;
};

void check_fixed_fields(const Json& source, const std::string& origin) {
  if (!source.is_object()) return;  // a Config made by a program, not read from a file
  static const FixedField kFixed[] = {
      {"model_type", "deepseek_v4", "this program trains DeepSeek-V4 models only"},
      {"num_key_value_heads", 1, "V4 has one latent that is key and value of every head"},
      {"n_shared_experts", 1, "V4 has one shared expert"},
      {"scoring_func", "sqrtsoftplus", "the router's scores are sqrt(softplus(z))"},
      {"topk_method", "noaux_tc", "experts are selected by bias-corrected scores"},
      {"norm_topk_prob", true, "the weights of the chosen experts are normalised"},
      {"hidden_act", "silu", "the experts are SwiGLU"},
      {"attention_bias", false, "V4 has no biases in its projections"},
      {"mlp_bias", false, "V4 has no biases in its experts"},
      {"attention_dropout", 0.0, "dropout is not supported"},
      {"tie_word_embeddings", false, "embedding and head are two matrices"},
  };
  for (const auto& field : kFixed) {
    const auto at = source.find(field.name);
    if (at != source.end() && !at->is_null() && *at != field.value)
      fail(ErrorCode::kUnsupported, "{}: {} = {}, but it must be {}: {}", origin, field.name, describe_json(*at),
           describe_json(field.value), field.reason);
  }
}

struct Range {
  const char* name;
  int64_t value, low, high;
};

void check_sizes(const Config& c, const std::string& origin) {
  constexpr int64_t kWide = int64_t{1} << 20, kMany = int64_t{1} << 16, kLong = (int64_t{1} << 31) - 1;
  const Range ranges[] = {
      {"vocab_size", c.vocab_size, 2, int64_t{1} << 24},
      {"hidden_size", c.hidden_size, 1, kWide},
      {"num_hidden_layers", c.num_hidden_layers, 1, kMaxLayers},
      {"num_attention_heads", c.num_attention_heads, 1, kMany},
      {"head_dim", c.head_dim, 2, kMany},
      {"q_lora_rank", c.q_lora_rank, 1, kWide},
      {"o_groups", c.o_groups, 1, kMany},
      {"o_lora_rank", c.o_lora_rank, 1, kWide},
      {"sliding_window", c.sliding_window, 1, kLong},
      {"n_routed_experts", c.n_routed_experts, 1, kMany},
      {"num_experts_per_tok", c.num_experts_per_tok, 1, kMany},
      {"moe_intermediate_size", c.moe_intermediate_size, 1, kWide},
      {"hc_mult", c.hc_mult, 1, 16},
      {"hc_sinkhorn_iters", c.hc_sinkhorn_iters, 1, 1000},
      {"max_position_embeddings", c.max_position_embeddings, 1, kLong},
      {"num_nextn_predict_layers", c.num_nextn_predict_layers, 0, kMaxLayers},
      {"bos_token_id", c.bos_token_id, -1, c.vocab_size - 1},
      {"eos_token_id", c.eos_token_id, -1, c.vocab_size - 1},
      {"the CSA rate", c.csa_rate, 1, kWide},
      {"the HCA rate", c.hca_rate, 1, kWide},
  };
  for (const auto& range : ranges)
    if (range.value < range.low || range.value > range.high)
      fail(ErrorCode::kInvalidArgument, "{}: {} = {} must be from {} to {}", origin, range.name, range.value, range.low,
           range.high);
  if (c.num_experts_per_tok > c.n_routed_experts)
    fail(ErrorCode::kInvalidArgument, "{}: num_experts_per_tok = {} must not exceed n_routed_experts = {}", origin,
         c.num_experts_per_tok, c.n_routed_experts);
  bool has_indexer = false;
  for (const auto kind : c.layer_types) has_indexer |= kind == AttentionKind::kCsa;
  if (!has_indexer) return;
  for (const auto& range :
       {Range{"index_n_heads", c.index_n_heads, 1, kMany}, Range{"index_head_dim", c.index_head_dim, 2, kMany},
        Range{"index_topk", c.index_topk, 1, kLong}})
    if (range.value < range.low || range.value > range.high)
      fail(ErrorCode::kInvalidArgument, "{}: {} = {} must be from {} to {} in a model with CSA layers", origin,
           range.name, range.value, range.low, range.high);
  if (c.qk_rope_head_dim > c.index_head_dim)
    fail(ErrorCode::kInvalidArgument, "{}: qk_rope_head_dim = {} must not exceed index_head_dim = {}", origin,
         c.qk_rope_head_dim, c.index_head_dim);
}

void check_numbers(const Config& c, const std::string& origin) {
  struct Positive {
    const char* name;
    double value;
  };
  for (const auto& [name, value] :
       {Positive{"rms_norm_eps", c.rms_norm_eps}, Positive{"hc_eps", c.hc_eps},
        Positive{"swiglu_limit", c.swiglu_limit}, Positive{"routed_scaling_factor", c.routed_scaling_factor},
        Positive{"initializer_range", c.initializer_range}})
    if (!(value > 0) || !std::isfinite(value))
      fail(ErrorCode::kInvalidArgument, "{}: {} = {} must be a positive number", origin, name, value);
}

void check_rope(const Rope& rope, const char* name, const std::string& origin) {
  if (!(rope.rope_theta > 1) || !std::isfinite(rope.rope_theta))
    fail(ErrorCode::kInvalidArgument, "{}: rope_theta = {} of the {} layers must be a number above 1", origin,
         rope.rope_theta, name);
  if (!rope.yarn) return;
  if (!(rope.factor >= 1) || !std::isfinite(rope.factor))
    fail(ErrorCode::kInvalidArgument, "{}: yarn factor = {} must be a number of at least 1", origin, rope.factor);
  if (!(rope.beta_slow > 0) || !(rope.beta_fast >= rope.beta_slow) || !std::isfinite(rope.beta_fast))
    fail(ErrorCode::kInvalidArgument, "{}: yarn needs 0 < beta_slow <= beta_fast, found beta_slow = {}, beta_fast = {}",
         origin, rope.beta_slow, rope.beta_fast);
  if (rope.original_max_position_embeddings < 1)
    fail(ErrorCode::kInvalidArgument, "{}: yarn's original_max_position_embeddings = {} must be positive", origin,
         rope.original_max_position_embeddings);
}

}  // namespace

void validate(const Config& config, const std::string& origin) {
  if (!config.source.empty()) check_fixed_fields(parse_json<Json>(config.source, origin), origin);
  check_sizes(config, origin);
  check_numbers(config, origin);
  const auto num_layers = static_cast<size_t>(config.num_hidden_layers);
  if (config.layer_types.size() != num_layers || config.is_hash_moe.size() != num_layers)
    fail(ErrorCode::kInvalidArgument,
         "{}: num_hidden_layers = {}, but layer_types has {} and mlp_layer_types {} entries", origin, num_layers,
         config.layer_types.size(), config.is_hash_moe.size());
  if (config.num_attention_heads % config.o_groups != 0)
    fail(ErrorCode::kInvalidArgument, "{}: num_attention_heads = {} must be divisible by o_groups = {}", origin,
         config.num_attention_heads, config.o_groups);
  if (config.qk_rope_head_dim < 2 || config.qk_rope_head_dim % 2 != 0 || config.qk_rope_head_dim > config.head_dim)
    fail(ErrorCode::kInvalidArgument, "{}: qk_rope_head_dim = {} must be even, positive and not above head_dim = {}",
         origin, config.qk_rope_head_dim, config.head_dim);
  check_rope(config.main_rope, "sliding-window", origin);
  check_rope(config.compress_rope, "compressed", origin);
}

}  // namespace temper::model
