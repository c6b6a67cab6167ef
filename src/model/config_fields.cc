#include "model/config_fields.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/nearest.h"

namespace temper::model {
namespace {

constexpr std::string_view kConfigFields[] = {
    // architecture page 1.1 and 1.2
    "architectures", "attention_bias", "attention_dropout", "bos_token_id", "compress_rate_csa", "compress_rate_hca",
    "compress_rates", "compress_ratios", "compress_rope_theta", "dtype", "eos_token_id", "expert_dtype", "hc_eps",
    "hc_mult", "hc_sinkhorn_iters", "head_dim", "hidden_act", "hidden_size", "index_head_dim", "index_n_heads",
    "index_topk", "initializer_range", "intermediate_size", "layer_types", "max_position_embeddings", "mlp_bias",
    "mlp_layer_types", "model_type", "moe_intermediate_size", "n_routed_experts", "n_shared_experts", "norm_topk_prob",
    "num_attention_heads", "num_experts_per_tok", "num_hash_layers", "num_hidden_layers", "num_key_value_heads",
    "num_local_experts", "num_nextn_predict_layers", "o_groups", "o_lora_rank", "output_router_logits", "pad_token_id",
    "partial_rotary_factor", "q_lora_rank", "qk_rope_head_dim", "quantization_config", "rms_norm_eps",
    "rope_parameters", "rope_scaling", "rope_theta", "routed_scaling_factor", "router_aux_loss_coef",
    "router_jitter_noise", "scoring_func", "sliding_window", "swiglu_limit", "tie_word_embeddings", "topk_method",
    "torch_dtype", "transformers_version", "use_cache", "vocab_size",
    // of transformers' base class and of older DeepSeek models
    "auto_map", "aux_loss_alpha", "ep_size", "first_k_dense_replace", "kv_lora_rank", "moe_layer_freq", "n_group",
    "num_experts", "output_attentions", "output_hidden_states", "pretraining_tp", "qk_head_dim", "qk_nope_head_dim",
    "return_dict", "sep_token_id", "seq_aux", "topk_group", "v_head_dim"};

constexpr std::string_view kRopeFields[] = {"attention_factor",
                                            "beta_fast",
                                            "beta_slow",
                                            "compress",
                                            "factor",
                                            "main",
                                            "mscale",
                                            "mscale_all_dim",
                                            "original_max_position_embeddings",
                                            "partial_rotary_factor",
                                            "rope_theta",
                                            "rope_type",
                                            "truncate",
                                            "type"};

}  // namespace

std::span<const std::string_view> known_config_fields() { return kConfigFields; }
std::span<const std::string_view> known_rope_fields() { return kRopeFields; }

Fields::Fields(const Json& object, std::string origin) : object_(object), origin_(std::move(origin)) {
  if (!object.is_object())
    fail(ErrorCode::kInvalidArgument, "{}: expected a JSON object, found {}", origin_, describe_json(object));
}

const Json* Fields::find(std::string_view name) const {
  const auto at = object_.find(std::string(name));
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

bool Fields::is_null(std::string_view name) const {
  const auto at = object_.find(std::string(name));
  return at != object_.end() && at->is_null();
}

std::optional<int64_t> Fields::integer(std::string_view name) const {
  const Json* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_number_integer()) wrong_type(name, *value, "an integer");
  if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{1} << 62)
    wrong_type(name, *value, "an integer of at most 2^62");
  return value->get<int64_t>();
}

std::optional<std::string> Fields::string(std::string_view name) const {
  const Json* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_string()) wrong_type(name, *value, "a string");
  return value->get<std::string>();
}

double Fields::number(std::string_view name, double otherwise) const {
  const Json* value = find(name);
  if (!value) return otherwise;
  if (!value->is_number()) wrong_type(name, *value, "a number");
  return value->get<double>();
}

int64_t Fields::required(std::string_view name) const {
  const auto value = integer(name);
  if (!value) fail(ErrorCode::kInvalidArgument, "{}: the field {} is missing; it has no default", origin_, name);
  return *value;
}

int64_t Fields::required(std::string_view name, std::string_view alias) const {
  const auto value = integer(name), other = integer(alias);
  if (value && other && *value != *other)
    fail(ErrorCode::kInvalidArgument, "{}: {} = {} and its alias {} = {} must be equal", origin_, name, *value, alias,
         *other);
  return other ? *other : required(name);
}

void Fields::refuse_misspellings(std::span<const std::string_view> known) const {
  for (const auto& [name, value] : object_.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    if (const auto nearest = nearest_name(name, known); !nearest.empty())
      fail(ErrorCode::kInvalidArgument, "{}: unknown field {}; did you mean {}?", origin_, name, nearest);
  }
}

void Fields::wrong_type(std::string_view name, const Json& value, std::string_view expected) const {
  fail(ErrorCode::kInvalidArgument, "{}: {} must be {}, found {}", origin_, name, expected, describe_json(value));
}

}  // namespace temper::model
