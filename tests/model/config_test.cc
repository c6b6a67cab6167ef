#include "model/config.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/nearest.h"

namespace temper::model {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

// A tiny model of four layers with every attention kind, in the spelling of DeepSeek's own config.json.
Json official() {
  return Json::parse(R"({"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "vocab_size": 64,
    "hidden_size": 32, "num_hidden_layers": 4, "num_nextn_predict_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 16, "qk_rope_head_dim": 8, "q_lora_rank": 12, "o_groups": 2, "o_lora_rank": 6,
    "sliding_window": 6, "compress_ratios": [0, 4, 8, 4, 0], "compress_rope_theta": 160000, "rope_theta": 10000,
    "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
                     "original_max_position_embeddings": 64},
    "max_position_embeddings": 1024, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 3, "n_routed_experts": 8,
    "num_experts_per_tok": 3, "n_shared_experts": 1, "moe_intermediate_size": 24, "scoring_func": "sqrtsoftplus",
    "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 2.5, "num_hash_layers": 1,
    "swiglu_limit": 10.0, "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "rms_norm_eps": 1e-6,
    "hidden_act": "silu", "attention_bias": false, "attention_dropout": 0.0, "tie_word_embeddings": false,
    "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16"})");
}

// The same model as transformers writes it.
Json transformers() {
  Json json = official();
  for (const char* name : {"compress_ratios", "num_hash_layers", "rope_scaling", "torch_dtype"}) json.erase(name);
  json["layer_types"] = {"sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention",
                         "compressed_sparse_attention"};
  json["mlp_layer_types"] = {"hash_moe", "moe", "moe", "moe"};
  json["compress_rates"] = {{"compressed_sparse_attention", 4}, {"heavily_compressed_attention", 8}};
  json["partial_rotary_factor"] = 0.5;
  json["dtype"] = "bfloat16";
  json["rope_parameters"] = Json::parse(R"({
    "main": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    "compress": {"rope_type": "yarn", "type": "yarn", "rope_theta": 160000.0, "factor": 16, "beta_fast": 32,
                 "beta_slow": 1, "original_max_position_embeddings": 64, "attention_factor": 1.0,
                 "partial_rotary_factor": 0.5}})");
  return json;
}

std::string error_of(const Json& json) {
  try {
    parse_config(json.dump(), "config.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ConfigTest, BothSpellingsGiveTheSameModel) {
  for (const Json& json : {official(), transformers()}) {
    const Config config = parse_config(json.dump(), "config.json");
    EXPECT_EQ(config.vocab_size, 64);
    EXPECT_EQ(config.qk_rope_head_dim, 8);
    EXPECT_THAT(config.layer_types,
                ElementsAre(AttentionKind::kSliding, AttentionKind::kCsa, AttentionKind::kHca, AttentionKind::kCsa));
    EXPECT_THAT(config.is_hash_moe, ElementsAre(true, false, false, false));
    EXPECT_EQ(config.compress_rate(0), 0);
    EXPECT_EQ(config.compress_rate(1), 4);
    EXPECT_EQ(config.compress_rate(2), 8);
    EXPECT_THAT(config.compress_rates(), ElementsAre(4, 8));
    EXPECT_FALSE(config.main_rope.yarn);
    EXPECT_EQ(config.main_rope.rope_theta, 10000);
    EXPECT_TRUE(config.compress_rope.yarn);
    EXPECT_EQ(config.compress_rope.rope_theta, 160000);
    EXPECT_EQ(config.compress_rope.factor, 16);
    EXPECT_EQ(config.compress_rope.original_max_position_embeddings, 64);
    EXPECT_EQ(config.routed_scaling_factor, 2.5);
    EXPECT_EQ(Json::parse(config.source), json);
  }
}

TEST(ConfigTest, RatiosOf128AreALabelWhereRatesAreGiven) {
  Json json = official();
  json["compress_ratios"] = {0, 4, 128, 4};
  EXPECT_EQ(parse_config(json.dump(), "c").hca_rate, 128);
  json["compress_rate_hca"] = 8;
  EXPECT_EQ(parse_config(json.dump(), "c").hca_rate, 8);
}

TEST(ConfigTest, AbsentScalarsHaveTheReleasedDefaults) {
  Json json = official();
  for (const char* name : {"hc_mult", "hc_sinkhorn_iters", "swiglu_limit", "rope_scaling", "eos_token_id",
                           "qk_rope_head_dim", "num_hash_layers"})
    json.erase(name);
  json["bos_token_id"] = nullptr;
  json["head_dim"] = 64;  // times 64/512 gives 8 rotary channels
  const Config config = parse_config(json.dump(), "c");
  EXPECT_EQ(config.hc_mult, 4);
  EXPECT_EQ(config.hc_sinkhorn_iters, 20);
  EXPECT_EQ(config.swiglu_limit, 10);
  EXPECT_FALSE(config.compress_rope.yarn);
  EXPECT_EQ(config.compress_rope.rope_theta, 160000);
  EXPECT_EQ(config.bos_token_id, -1);
  EXPECT_EQ(config.eos_token_id, 1);
  EXPECT_EQ(config.qk_rope_head_dim, 8);
  EXPECT_THAT(config.is_hash_moe, ElementsAre(true, true, true, false));
}

TEST(ConfigTest, UnknownFieldsAreKept) {
  Json json = official();
  json["my_own_note"] = {{"a", 1}};
  EXPECT_EQ(Json::parse(parse_config(json.dump(), "c").source)["my_own_note"]["a"], 1);
}

struct BadField {
  const char* pointer;               // what is changed, as a JSON pointer
  Json value;                        // null erases it
  std::vector<std::string> message;  // each must appear
};

TEST(ConfigTest, InconsistentFieldsAreNamed) {
  const std::vector<BadField> cases = {
      {"/hidden_size", nullptr, {"hidden_size", "missing"}},
      {"/hidden_size", "32", {"hidden_size", "\"32\"", "integer"}},
      {"/hidden_size", -32, {"hidden_size = -32", "from 1"}},
      {"/hidden_size", 1e30, {"hidden_size", "integer"}},
      {"/vocab_size", uint64_t{1} << 63, {"vocab_size", "2^62"}},
      {"/num_hidden_layers", int64_t{1} << 40, {"num_hidden_layers = 1099511627776"}},
      {"/num_hidden_layers", 6, {"compress_ratios has 5 entries", "num_hidden_layers = 6"}},
      {"/num_attention_heads", 5, {"num_attention_heads = 5", "o_groups = 2"}},
      {"/qk_rope_head_dim", 7, {"qk_rope_head_dim = 7", "even"}},
      {"/qk_rope_head_dim", 18, {"qk_rope_head_dim = 18", "16"}},
      {"/index_head_dim", 6, {"qk_rope_head_dim = 8", "index_head_dim = 6"}},
      {"/index_topk", nullptr, {"index_topk = 0", "CSA"}},
      {"/num_experts_per_tok", 9, {"num_experts_per_tok = 9", "n_routed_experts = 8"}},
      {"/num_local_experts", 9, {"n_routed_experts = 8", "num_local_experts = 9"}},
      {"/compress_ratios", nullptr, {"layer_types", "compress_ratios", "no safe default"}},
      {"/compress_ratios", Json({0, 4, 8, 16, 0}), {"8 and 16"}},
      {"/compress_ratios", Json({0, 4, -8, 4, 0}), {"-8"}},
      {"/compress_rate_hca", 16, {"says 8 in layer 2", "16"}},
      {"/layer_types", Json({"sliding_attention"}), {"layer_types has 1 entries", "num_hidden_layers = 4"}},
      {"/layer_types", Json({"a", "b", "c", "d"}), {"\"a\"", "sliding_attention"}},
      {"/mlp_layer_types", Json({"moe", "moe", "moe", "moe"}), {"mlp_layer_types", "num_hash_layers = 1"}},
      {"/mlp_layer_types", Json({"moe"}), {"mlp_layer_types has 1 entries"}},
      {"/partial_rotary_factor", 0.25, {"qk_rope_head_dim = 8", "partial_rotary_factor 0.25"}},
      {"/num_key_value_heads", 2, {"num_key_value_heads = 2", "must be 1"}},
      {"/n_shared_experts", 2, {"n_shared_experts = 2", "must be 1"}},
      {"/scoring_func", "softmax", {"scoring_func", "softmax", "sqrtsoftplus"}},
      {"/hidden_act", "gelu", {"hidden_act", "gelu", "silu"}},
      {"/attention_bias", true, {"attention_bias = true"}},
      {"/attention_dropout", 0.1, {"attention_dropout = 0.1"}},
      {"/tie_word_embeddings", true, {"tie_word_embeddings = true"}},
      {"/model_type", "llama", {"model_type", "llama", "deepseek_v4"}},
      {"/rope_scaling/type", "linear", {"rope_scaling", "linear", "yarn"}},
      {"/rope_scaling/factor", 0.5, {"factor = 0.5"}},
      {"/rope_scaling/beta_slow", 64, {"beta_slow = 64", "beta_fast = 32"}},
      {"/rope_scaling/original_max_position_embeddings", nullptr, {"rope_scaling", "original_max_position_embeddings"}},
      {"/rope_scaling/attention_factor", 1.2, {"attention_factor"}},
      {"/rope_scaling/betafast", 32, {"betafast", "beta_fast"}},
      {"/rms_norm_eps", 0, {"rms_norm_eps = 0"}},
      {"/eos_token_id", 64, {"eos_token_id = 64", "63"}},
      {"/hiden_size", 32, {"hiden_size", "did you mean hidden_size"}},
      {"/sliding_windows", 6, {"did you mean sliding_window"}},
  };
  for (const auto& bad : cases) {
    Json json = official();
    const Json::json_pointer pointer(bad.pointer);
    if (bad.value.is_null())
      json.at(pointer.parent_pointer()).erase(pointer.back());
    else
      json[pointer] = bad.value;
    const std::string message = error_of(json);
    for (const auto& part : bad.message) EXPECT_THAT(message, HasSubstr(part)) << bad.pointer;
    EXPECT_THAT(message, HasSubstr("config.json")) << bad.pointer;
  }
}

TEST(ConfigTest, NestedYarnWithoutAttentionFactorIsRefused) {
  Json json = transformers();
  json["rope_parameters"]["compress"].erase("attention_factor");
  EXPECT_THAT(error_of(json), HasSubstr("attention_factor"));
  json = transformers();
  json["rope_parameters"]["compress"]["partial_rotary_factor"] = 0.25;
  EXPECT_THAT(error_of(json), HasSubstr("rotates 4 channels"));
}

TEST(ConfigTest, RotaryFactorsBeyondEveryIntegerAreRefused) {
  for (const double factor : {1e300, -1e300, 1e18}) {
    Json json = transformers();
    json["rope_parameters"]["main"]["partial_rotary_factor"] = factor;
    EXPECT_THAT(error_of(json), HasSubstr("rotates -1 channels"));
  }
}

TEST(ConfigTest, TextThatIsNotAConfigIsRefused) {
  const auto message = [](const std::string& text) {
    try {
      parse_config(text, "config.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(message("{\"vocab_size\": 64,\n \"x\" 1}"), HasSubstr("line 2"));
  EXPECT_THAT(message("[1, 2]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(message("{\"a\": 1, \"a\": 2}"), HasSubstr("twice"));
  EXPECT_THAT(message(std::string(100000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(message(""), HasSubstr("not valid JSON"));
}

}  // namespace
}  // namespace temper::model
