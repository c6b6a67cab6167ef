// The shape of a DeepSeek-V4 model. Fields keep their names from Hugging Face's config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace temper::model {

inline constexpr int64_t kMaxLayers = 4096;

enum class AttentionKind : uint8_t { kSliding, kCsa, kHca };

struct Rope {
  double rope_theta = 10000;
  bool yarn = false;
  double factor = 1, beta_fast = 32, beta_slow = 1;
  int64_t original_max_position_embeddings = 0;
};

struct Config {
  int64_t vocab_size = 0, hidden_size = 0, num_hidden_layers = 0;
  int64_t num_attention_heads = 0, head_dim = 0, qk_rope_head_dim = 0, q_lora_rank = 0;
  int64_t o_groups = 0, o_lora_rank = 0, sliding_window = 0;
  int64_t index_n_heads = 0, index_head_dim = 0, index_topk = 0;
  int64_t n_routed_experts = 0, num_experts_per_tok = 0, moe_intermediate_size = 0;
  double routed_scaling_factor = 1, swiglu_limit = 10, rms_norm_eps = 1e-6, hc_eps = 1e-6, initializer_range = 0.02;
  int64_t hc_mult = 4, hc_sinkhorn_iters = 20, max_position_embeddings = 0;
  int64_t bos_token_id = 0, eos_token_id = 1;  // -1 = none; of several ends the first
  int64_t num_nextn_predict_layers = 0;
  std::vector<AttentionKind> layer_types;  // one per main layer
  std::vector<bool> is_hash_moe;           // one per main layer: routed by token id
  int64_t csa_rate = 4, hca_rate = 128;
  Rope main_rope, compress_rope;  // compress_rope serves every layer that has a compressor

  std::string source;  // text of config.json as read, so that what we write back keeps every field; may be empty

  int64_t compress_rate(int64_t layer) const {
    return layer_types[layer] == AttentionKind::kCsa   ? csa_rate
           : layer_types[layer] == AttentionKind::kHca ? hca_rate
                                                       : 0;
  }
  std::vector<int64_t> compress_rates() const;  // distinct rates in use, ascending
};

// Parses config.json, in the official spelling (compress_ratios, num_hash_layers, qk_rope_head_dim, rope_scaling) and
// in that of transformers (layer_types, mlp_layer_types, compress_rates, partial_rotary_factor, rope_parameters).
// Throws kInvalidArgument naming the field, its value and what it must agree with; unknown fields are kept, not
// refused, unless they look like a misspelling of a known one.
Config parse_config(const std::string& json_text, const std::string& origin);

// Every consistency rule in one place; throws on the first that fails. Called by parse_config.
void validate(const Config& config, const std::string& origin);

}  // namespace temper::model
