#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "checkpoint/model_dir.h"
#include "checkpoint/official_dir.h"

namespace temper::checkpoint {
namespace {

using layers::Precision;
using testing::AllOf;
using testing::HasSubstr;

// A directory, loaded.
struct Loaded {
  explicit Loaded(const OfficialStyle& style, Precision precision = Precision::kFp32)
      : made(style), model(precision, style.mtp) {
    made.write(dir.path());
    load_weights(dir.path(), model.ctx(), model.parameters());
  }
  void save(const ScratchDir& to, SaveOptions options) {
    options.source_dir = dir.path();
    model::Config config;
    config.source = read_file(dir / "config.json");
    save_weights(to.path(), config, model.ctx(), model.parameters(), options);
  }
  float& element(const std::string& name, int64_t index) {
    for (const auto* parameter : model.parameters())
      if (parameter->name == name)
        return parameter->master.defined() ? parameter->master.data<float>()[index]
                                           : parameter->value.data<float>()[index];
    CHECK(false, name);
  }

  OfficialDir made;
  OfficialModel model;
  ScratchDir dir;
};

nlohmann::json config_of(const ScratchDir& dir) { return nlohmann::json::parse(read_file(dir / "config.json")); }

// The names of tensors that differ.
std::vector<std::string> differences(const ScratchDir& a, const ScratchDir& b) {
  const auto left = contents(a.path()), right = contents(b.path());
  EXPECT_EQ(left.size(), right.size());
  std::vector<std::string> names;
  for (const auto& [name, bytes] : left)
    if (!right.contains(name) || right.at(name) != bytes) names.push_back(name);
  return names;
}

// The values of a stored weight.
std::vector<float> stored_values(const ScratchDir& dir, const std::string& name) {
  const WeightSource source(dir.path());
  for (const auto& tensor : source.tensors()) {
    if (tensor.stored_name() != name) continue;
    std::vector<float> values(static_cast<size_t>(tensor.encoded.size()));
    decode_rows(tensor.encoded, 0, tensor.encoded.num_rows(), values.data(), FileDType::kF32);
    return values;
  }
  CHECK(false, name);
}

std::string stored_as(const ScratchDir& dir, const std::string& name) {
  const WeightSource source(dir.path());
  for (const auto& tensor : source.tensors())
    if (tensor.stored_name() == name)
      return tensor.encoded.to_string() + (tensor.encoded.scale ? " " + tensor.encoded.scale->to_string() : "");
  return "absent";
}

TEST(SaveQuantisedTest, WhatWasNotTouchedComesBackByteForByte) {
  const OfficialStyle styles[] = {{.fp8 = true, .fp4 = false, .prefix = "model."},
                                  {.scale_suffix = "weight_scale_inv"},
                                  {.scale_dtype = FileDType::kF32},
                                  {.mtp = true}};
  for (const auto& style : styles)
    for (const auto precision : {Precision::kFp32, Precision::kBf16})
      for (const auto dtype : {SaveDType::kSource, SaveDType::kOfficial}) {
        Loaded loaded(style, precision);
        ScratchDir out;
        const bool in_shards = style.mtp && dtype == SaveDType::kSource;
        loaded.save(out, {.dtype = dtype, .max_shard_bytes = in_shards ? 3000 : 1 << 30});
        EXPECT_THAT(differences(loaded.dir, out), testing::IsEmpty());
        EXPECT_EQ(config_of(out)["quantization_config"]["quant_method"], "fp8");
        EXPECT_EQ(config_of(out)["expert_dtype"], "fp4");
      }
}

TEST(SaveQuantisedTest, WhatWasTouchedIsQuantisedAnewAndNothingElse) {
  for (const auto scale_dtype : {FileDType::kF8E8M0, FileDType::kF32}) {
    Loaded loaded({.scale_dtype = scale_dtype});
    const int64_t w3_of_1 = (64 + 32) * 64;
    loaded.element("model.layers.0.self_attn.q_a_proj.weight", 129 * 64 + 3) = 1.75f;
    loaded.element("model.layers.0.mlp.experts.gate_up_proj", w3_of_1 + 40) *= 1.5f;
    ScratchDir out;
    loaded.save(out, {});
    const std::string w3 = "layers.0.ffn.experts.1.w3.weight", q_a = "layers.0.attn.wq_a.weight";
    for (const auto& name : differences(loaded.dir, out))
      EXPECT_TRUE(name.starts_with("layers.0.ffn.experts.1.w3.") || name.starts_with("layers.0.attn.wq_a.")) << name;
    EXPECT_EQ(stored_as(out, q_a), stored_as(loaded.dir, q_a));
    EXPECT_EQ(stored_as(out, w3), stored_as(loaded.dir, w3));
    // What is written is encode(values).
    Held codes("x.weight", FileDType::kF8E4M3, {130, 64}), scale("x.scale", scale_dtype, {2, 1});
    ASSERT_TRUE(encode_fp8(&loaded.element("model.layers.0.self_attn.q_a_proj.weight", 0), 130, 64, scale_dtype,
                           codes.bytes.data(), scale.bytes.data()));
    std::vector<float> expected(130 * 64);
    decode_rows(encoded_tensor(codes, &scale), 0, 130, expected.data(), FileDType::kF32);
    EXPECT_EQ(stored_values(out, q_a), expected);
    EXPECT_NEAR(expected[129 * 64 + 3], 1.75f, 1.75f / 16);
    Held packed("x.weight", FileDType::kI8, {32, 32}), tiles("x.scale", FileDType::kF8E8M0, {32, 2});
    ASSERT_TRUE(encode_fp4(&loaded.element("model.layers.0.mlp.experts.gate_up_proj", w3_of_1), 32, 64,
                           packed.bytes.data(), tiles.bytes.data()));
    expected.resize(32 * 64);
    decode_rows(encoded_tensor(packed, &tiles), 0, 32, expected.data(), FileDType::kF32);
    EXPECT_EQ(stored_values(out, w3), expected);
  }
}

TEST(SaveQuantisedTest, Bf16ExportLosesNothing) {
  Loaded loaded({.mtp = true});
  ScratchDir out;
  loaded.save(out, {.dtype = SaveDType::kBF16});
  EXPECT_EQ(stored_as(out, "layers.0.attn.wq_a.weight"), "BF16 [130, 64]");
  EXPECT_EQ(stored_as(out, "mtp.0.e_proj.weight"), "BF16 [64, 64]");
  EXPECT_FALSE(config_of(out).contains("quantization_config"));
  EXPECT_FALSE(config_of(out).contains("expert_dtype"));
  EXPECT_EQ(config_of(out)["dtype"], "bfloat16");
  OfficialModel back(Precision::kFp32, true);
  load_weights(out.path(), back.ctx(), back.parameters());
  for (const auto* parameter : back.parameters())
    EXPECT_EQ(values_of(parameter->value), loaded.made.values().at(parameter->name)) << parameter->name;
}

TEST(SaveQuantisedTest, MtpIsCarriedOverWhereTheModelHasNone) {
  const OfficialDir made({.mtp = true});
  ScratchDir dir, same, plain;
  made.write(dir.path());
  OfficialModel model(Precision::kBf16, false);
  load_weights(dir.path(), model.ctx(), model.parameters());
  save_weights(same.path(), {}, model.ctx(), model.parameters(), {.source_dir = dir.path()});
  EXPECT_THAT(differences(dir, same), testing::IsEmpty());
  save_weights(plain.path(), {}, model.ctx(), model.parameters(),
               {.dtype = SaveDType::kBF16, .source_dir = dir.path()});
  EXPECT_EQ(stored_as(plain, "mtp.0.e_proj.weight"), "BF16 [64, 64]");
  EXPECT_EQ(stored_values(plain, "mtp.0.e_proj.weight"), stored_values(dir, "mtp.0.e_proj.weight"));
  EXPECT_FALSE(config_of(plain).contains("quantization_config"));
}

// The tensors of another drafter mean nothing to this program; they stay as they are in every export.
TEST(SaveQuantisedTest, AnotherMtpIsCarriedOverAsItIs) {
  OfficialDir made({});
  made.tensors().emplace_back("mtp.1.main_proj.weight", FileDType::kF8E4M3, std::vector<int64_t>{8, 16}).at(3) = 0x41;
  made.tensors().emplace_back("mtp.1.main_proj.scale", FileDType::kF8E8M0, std::vector<int64_t>{1, 1}).at(0) = 120;
  ScratchDir dir, out;
  made.write(dir.path());
  OfficialModel model(Precision::kFp32, false);
  load_weights(dir.path(), model.ctx(), model.parameters());
  save_weights(out.path(), {}, model.ctx(), model.parameters(), {.dtype = SaveDType::kBF16, .source_dir = dir.path()});
  for (const char* name : {"mtp.1.main_proj.weight", "mtp.1.main_proj.scale"})
    EXPECT_EQ(contents(out.path()).at(name), contents(dir.path()).at(name));
  EXPECT_FALSE(config_of(out).contains("quantization_config"));
}

TEST(SaveQuantisedTest, OfficialFromPlainWeightsFollowsTheRelease) {
  Loaded plain({.fp8 = false, .fp4 = false, .prefix = "model.", .mtp = true});
  ScratchDir from_bf16, from_nothing;
  plain.save(from_bf16, {.dtype = SaveDType::kOfficial});
  save_weights(from_nothing.path(), {}, plain.model.ctx(), plain.model.parameters(), {.dtype = SaveDType::kOfficial});
  EXPECT_THAT(differences(from_bf16, from_nothing), testing::IsEmpty());
  EXPECT_EQ(config_of(from_nothing)["quantization_config"]["scale_fmt"], "ue8m0");
  EXPECT_EQ(config_of(from_nothing)["expert_dtype"], "fp4");
  EXPECT_EQ(config_of(from_nothing)["dtype"], "bfloat16");
  const std::pair<const char*, const char*> formats[] = {
      {"embed.weight", "BF16 [6, 64]"},
      {"layers.0.attn.attn_sink", "F32 [3]"},
      {"layers.0.attn.kv_norm.weight", "BF16 [64]"},
      {"layers.0.attn.wq_a.weight", "FP8 [130, 64] F8_E8M0 [2, 1]"},
      {"layers.0.ffn.gate.tid2eid", "I64 [6, 1]"},
      {"layers.0.ffn.experts.1.w2.weight", "FP4 [64, 32] F8_E8M0 [64, 1]"},
      {"mtp.0.e_proj.weight", "FP8 [64, 64] F8_E8M0 [1, 1]"},
  };
  for (const auto& [name, format] : formats) EXPECT_EQ(stored_as(from_bf16, name), format) << name;
  // Once quantised, a model that is loaded and saved again stays what it is.
  OfficialModel back(Precision::kFp32, true);
  load_weights(from_bf16.path(), back.ctx(), back.parameters());
  ScratchDir again;
  save_weights(again.path(), {}, back.ctx(), back.parameters(),
               {.dtype = SaveDType::kOfficial, .source_dir = from_bf16.path()});
  EXPECT_THAT(differences(from_bf16, again), testing::IsEmpty());
}

TEST(SaveQuantisedTest, OtherNamesKeepTheBytes) {
  Loaded loaded({.prefix = "model.", .scale_suffix = "weight_scale_inv"});
  ScratchDir out;
  loaded.save(out, {.style = NameStyle::kOfficial});
  const auto before = contents(loaded.dir.path()), after = contents(out.path());
  EXPECT_EQ(before.at("model.layers.0.ffn.experts.1.w1.weight_scale_inv"), after.at("layers.0.ffn.experts.1.w1.scale"));
  EXPECT_EQ(before.at("model.layers.0.attn.wo_a.weight"), after.at("layers.0.attn.wo_a.weight"));
  EXPECT_EQ(before.size(), after.size());
}

TEST(SaveQuantisedTest, WhatCannotBeQuantisedIsRefused) {
  Loaded loaded({});
  ScratchDir out;
  EXPECT_THAT(error_of([&] { loaded.save(out, {.style = NameStyle::kModules}); }),
              AllOf(HasSubstr("mlp.experts.gate_up_proj"), HasSubstr("stacked")));
  loaded.element("model.layers.0.mlp.experts.down_proj", 64 * 32 + 5) = NAN;
  EXPECT_THAT(error_of([&] { loaded.save(out, {}); }),
              AllOf(HasSubstr("layers.0.ffn.experts.1.w2.weight"), HasSubstr("not a finite number")));
}

}  // namespace
}  // namespace temper::checkpoint
