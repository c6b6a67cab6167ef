#include "checkpoint/names.h"

#include <gtest/gtest.h>

namespace temper::checkpoint {
namespace {

TEST(NamesTest, ReadsEverySpelling) {
  struct Case {
    const char *stored, *parameter;
    int64_t expert = -1;
    Part part = Part::kWhole;
  };
  const Case cases[] = {
      {"embed.weight", "model.embed_tokens.weight"},
      {"model.embed_tokens.weight", "model.embed_tokens.weight"},
      {"head.weight", "lm_head.weight"},
      {"lm_head.weight", "lm_head.weight"},
      {"norm.weight", "model.norm.weight"},
      {"hc_head_fn", "model.hc_head.hc_fn"},
      {"model.hc_head.hc_scale", "model.hc_head.hc_scale"},
      {"layers.10.attn.wq_a.weight", "model.layers.10.self_attn.q_a_proj.weight"},
      {"model.layers.0.hc_ffn_scale", "model.layers.0.ffn_hc.scale"},
      {"model.layers.0.attn.norm.weight", "model.layers.0.self_attn.kv_norm.weight"},
      {"layers.0.attn.kv_norm.weight", "model.layers.0.self_attn.kv_norm.weight"},
      {"layers.2.attn.indexer.weights_proj.weight",
       "model.layers.2.self_attn.compressor.indexer.scorer.weights_proj.weight"},
      {"model.layers.2.self_attn.compressor.indexer.weights_proj.weight",
       "model.layers.2.self_attn.compressor.indexer.scorer.weights_proj.weight"},
      {"layers.2.attn.indexer.compressor.ape", "model.layers.2.self_attn.compressor.indexer.position_bias"},
      {"layers.3.ffn.gate.bias", "model.layers.3.mlp.gate.e_score_correction_bias"},
      {"layers.3.ffn.experts.17.w1.weight", "model.layers.3.mlp.experts.gate_up_proj", 17, Part::kGate},
      {"layers.3.ffn.experts.17.w3.weight", "model.layers.3.mlp.experts.gate_up_proj", 17, Part::kUp},
      {"model.layers.3.mlp.experts.0.down_proj.weight", "model.layers.3.mlp.experts.down_proj", 0, Part::kDown},
      {"model.layers.3.mlp.experts.gate_up_proj", "model.layers.3.mlp.experts.gate_up_proj"},
      {"mtp.0.attn.wq_a.weight", "mtp.0.self_attn.q_a_proj.weight"},
      {"model.mtp.0.hc_ffn_fn", "mtp.0.ffn_hc.fn"},
      {"mtp.0.self_attn.sinks", "mtp.0.self_attn.sinks"},
      {"mtp.0.e_proj.weight", "mtp.0.e_proj.weight"},
      {"mtp.0.norm.weight", "mtp.0.norm.weight"},
      {"mtp.0.hc_head_base", "mtp.0.hc_head.hc_base"},
      {"mtp.0.ffn.gate.bias", "mtp.0.mlp.gate.e_score_correction_bias"},
      {"mtp.0.ffn.experts.2.w3.weight", "mtp.0.mlp.experts.gate_up_proj", 2, Part::kUp},
  };
  for (const auto& [stored, parameter, expert, part] : cases) {
    const auto name = parse_tensor_name(stored);
    ASSERT_TRUE(name.has_value()) << stored;
    EXPECT_EQ(name->parameter, parameter) << stored;
    EXPECT_EQ(name->expert, expert) << stored;
    EXPECT_EQ(name->part, part) << stored;
  }
}

TEST(NamesTest, RefusesWhatIsNoName) {
  for (const char* stored :
       {"", "model.", "layers.0", "layers.x.attn_norm.weight", "layers.-1.attn_norm.weight",
        "layers.01.attn_norm.weight", "layers.99999999999.attn_norm.weight", "layers.0.attn_norm.bias",
        "layers.0.ffn.experts.w1.weight", "layers.0.ffn.experts.0.w4.weight", "model.embed.weights",
        "layers.0.attn.wq_a.scale", "mtp.0", "mtp.1.attn_norm.weight", "mtp.0.embed.weight", "mtp.0.e_proj.scale",
        "layers.0.e_proj.weight"})
    EXPECT_FALSE(parse_tensor_name(stored).has_value()) << stored;
}

TEST(NamesTest, EveryStyleReadsBackAsItsParameter) {
  const std::pair<const char*, Shape> parameters[] = {
      {"model.embed_tokens.weight", {8, 4}},
      {"lm_head.weight", {8, 4}},
      {"model.hc_head.hc_base", {4}},
      {"model.layers.1.self_attn.kv_norm.weight", {4}},
      {"model.layers.1.self_attn.compressor.indexer.scorer.weights_proj.weight", {2, 4}},
      {"model.layers.1.mlp.experts.gate_up_proj", {3, 10, 4}},
      {"model.layers.1.mlp.experts.down_proj", {3, 4, 5}},
      {"mtp.0.hnorm.weight", {4}},
      {"mtp.0.hc_head.hc_scale", {1}},
      {"mtp.0.self_attn.kv_norm.weight", {4}},
      {"mtp.0.mlp.experts.gate_up_proj", {3, 10, 4}},
  };
  for (const auto style : {NameStyle::kTransformers, NameStyle::kModules, NameStyle::kOfficial})
    for (const auto& [parameter, shape] : parameters) {
      int64_t size = 0;
      for (const auto& [stored, name] : stored_names(parameter, shape, style)) {
        const auto back = parse_tensor_name(stored);
        ASSERT_TRUE(back.has_value()) << stored;
        EXPECT_EQ(back->parameter, parameter);
        EXPECT_EQ(back->expert, name.expert) << stored;
        EXPECT_EQ(back->part, name.part) << stored;
        size += part_of(View(nullptr, DType::kF32, shape), name).size();
      }
      EXPECT_EQ(size, shape.size()) << parameter;
    }
  EXPECT_EQ(stored_names("lm_head.weight", {8, 4}, NameStyle::kTransformers)[0].stored, "head.weight");
  EXPECT_EQ(stored_names("model.layers.1.self_attn.kv_norm.weight", {4}, NameStyle::kTransformers)[0].stored,
            "model.layers.1.attn.norm.weight");
  EXPECT_EQ(stored_names("model.layers.1.mlp.experts.down_proj", {3, 4, 5}, NameStyle::kOfficial)[2].stored,
            "layers.1.ffn.experts.2.w2.weight");
  for (const auto style : {NameStyle::kTransformers, NameStyle::kModules, NameStyle::kOfficial}) {
    EXPECT_EQ(stored_names("mtp.0.self_attn.kv_norm.weight", {4}, style)[0].stored, "mtp.0.attn.kv_norm.weight");
    EXPECT_EQ(stored_names("mtp.0.mlp.experts.gate_up_proj", {3, 10, 4}, style)[1].stored,
              "mtp.0.ffn.experts.0.w3.weight");
  }
}

TEST(NamesTest, PartsAreTheRowsOfTheExpert) {
  const View gate_up(nullptr, DType::kF32, {3, 10, 4});
  const View up = part_of(gate_up, {"", 1, Part::kUp});
  EXPECT_EQ(up.offset, 1 * 40 + 5 * 4);
  EXPECT_EQ(up.shape, Shape({5, 4}));
  EXPECT_EQ(part_of(gate_up, {"", 1, Part::kGate}).offset, 40);
}

TEST(NamesTest, Fp32TensorsAreThoseOfTransformers) {
  for (const char* name :
       {"model.norm.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.attn_hc.fn",
        "model.layers.0.self_attn.q_a_norm.weight", "model.layers.0.self_attn.compressor.kv_norm.weight",
        "model.layers.0.self_attn.sinks", "model.layers.0.self_attn.compressor.position_bias",
        "model.layers.0.mlp.gate.e_score_correction_bias", "model.hc_head.hc_fn"})
    EXPECT_TRUE(is_kept_in_fp32(name)) << name;
  for (const char* name :
       {"lm_head.weight", "model.layers.0.mlp.gate.weight", "model.layers.0.self_attn.q_a_proj.weight"})
    EXPECT_FALSE(is_kept_in_fp32(name)) << name;
}

TEST(NamesTest, KnowsMtpItsCopiesAndForeignDrafters) {
  enum class Kind { kOwn, kCopy, kForeign };
  const std::pair<const char*, Kind> cases[] = {
      {"mtp.0.attn.wq_a.weight", Kind::kOwn},
      {"model.mtp.0.enorm.weight", Kind::kOwn},
      {"mtp.0.hc_head_fn", Kind::kOwn},
      {"mtp.0.e_proj.scale", Kind::kOwn},
      {"mtp.0.emb.tok_emb.weight", Kind::kCopy},
      {"mtp.0.embed.weight", Kind::kCopy},
      {"mtp.0.head.weight", Kind::kCopy},
      {"model.mtp.0.shared_head.weight", Kind::kCopy},
      {"mtp.1.attn.wq_a.weight", Kind::kForeign},
      {"mtp.2.head.weight", Kind::kForeign},
      {"mtp.0.markov_head.weight", Kind::kForeign},
      {"mtp.0.markov.embed.weight", Kind::kForeign},
      {"mtp.0.main_proj.weight", Kind::kForeign},
      {"mtp.0.attn.wq_c.scale", Kind::kForeign},
  };
  for (const auto& [stored, kind] : cases) {
    EXPECT_TRUE(is_mtp_name(stored)) << stored;
    EXPECT_EQ(is_mtp_copy(stored), kind == Kind::kCopy) << stored;
    EXPECT_EQ(is_foreign_mtp_name(stored), kind == Kind::kForeign) << stored;
  }
  for (const char* stored : {"layers.0.attn.wq_a.weight", "head.weight", "embed.weight", "unknown"}) {
    EXPECT_FALSE(is_mtp_name(stored)) << stored;
    EXPECT_FALSE(is_mtp_copy(stored)) << stored;
    EXPECT_FALSE(is_foreign_mtp_name(stored)) << stored;
  }
}

TEST(NamesTest, ScalesBelongToWeights) {
  const std::pair<const char*, const char*> cases[] = {
      {"layers.0.attn.wq_a.scale", "layers.0.attn.wq_a.weight"},
      {"model.layers.0.attn.wq_a.weight_scale_inv", "model.layers.0.attn.wq_a.weight"},
      {"mtp.0.ffn.experts.3.w1.weight_scale", "mtp.0.ffn.experts.3.w1.weight"},
      {"model.layers.0.mlp.experts.gate_up_proj_scale_inv", "model.layers.0.mlp.experts.gate_up_proj"},
  };
  for (const auto& [scale, weight] : cases) EXPECT_EQ(weight_of_scale(scale), weight) << scale;
  for (const char* stored : {"layers.0.attn.wq_a.weight", "model.layers.0.attn_hc.scale", "layers.0.hc_attn_scale",
                             "hc_head_scale", "model.hc_head.hc_scale", "layers.0.attn.unknown.scale", ".scale"})
    EXPECT_EQ(weight_of_scale(stored), std::nullopt) << stored;
  EXPECT_EQ(scale_name("mtp.0.e_proj.weight"), "mtp.0.e_proj.scale");
}

TEST(NamesTest, ReleaseQuantisesProjectionsAndExperts) {
  const std::pair<const char*, ReleaseDType> cases[] = {
      {"model.embed_tokens.weight", ReleaseDType::kBF16},
      {"model.hc_head.hc_fn", ReleaseDType::kF32},
      {"model.layers.0.mlp.gate.tid2eid", ReleaseDType::kI64},
      {"model.layers.2.self_attn.compressor.indexer.q_b_proj.weight", ReleaseDType::kFp8},
      {"model.layers.2.self_attn.compressor.indexer.kv_proj.weight", ReleaseDType::kBF16},
      {"model.layers.3.mlp.experts.down_proj", ReleaseDType::kFp4},
      {"mtp.0.h_proj.weight", ReleaseDType::kFp8},
      {"mtp.0.mlp.experts.gate_up_proj", ReleaseDType::kFp4},
  };
  for (const auto& [parameter, dtype] : cases) EXPECT_EQ(release_dtype(parameter), dtype) << parameter;
}

}  // namespace
}  // namespace temper::checkpoint
