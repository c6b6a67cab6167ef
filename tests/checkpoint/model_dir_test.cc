#include "checkpoint/model_dir.h"

#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "checkpoint/convert.h"
#include "checkpoint/files.h"
#include "checkpoint/tensor_dir.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;
using layers::Precision;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Enough parameters for every kind of tensor: matrix, norm, buffer, table, experts, a frozen matrix.
class Tiny : public HandMade {
 public:
  explicit Tiny(Precision precision) : HandMade(precision) {
    matrix("model.embed_tokens.weight", {6, 4});
    vector("model.layers.0.self_attn.sinks", {3});
    vector("model.layers.0.self_attn.kv_norm.weight", {5});
    matrix("model.layers.0.mlp.gate.weight", {2, 4});
    table("model.layers.0.mlp.gate.tid2eid", {6, 1});
    matrix("model.layers.0.mlp.experts.gate_up_proj", {2, 6, 4});
    matrix("model.layers.0.mlp.experts.down_proj", {2, 4, 3});
    matrix("model.layers.1.self_attn.compressor.indexer.q_b_proj.weight", {4, 3}, false);
    matrix("lm_head.weight", {6, 4});
  }
};

model::Config tiny_config() {
  model::Config config;
  config.source = R"({"model_type": "deepseek_v4", "note": "kept", "torch_dtype": "bfloat16", "expert_dtype": "fp4"})";
  return config;
}

void save(const fs::path& dir, HandMade& model, const SaveOptions& options) {
  save_weights(dir, tiny_config(), model.ctx(), model.parameters(), options);
}

std::string load_error(const fs::path& dir, HandMade& model) {
  return error_of([&] { load_weights(dir, model.ctx(), model.parameters()); });
}

TEST(ModelDirTest, EveryStyleAndShardSizeLoadsBack) {
  for (const auto style : {NameStyle::kTransformers, NameStyle::kModules, NameStyle::kOfficial})
    for (const int64_t max_shard_bytes : {int64_t{1} << 40, int64_t{100}}) {
      ScratchDir dir;
      Tiny model(Precision::kFp32), back(Precision::kFp32);
      model.fill(1);
      SaveOptions options;
      options.style = style;
      options.max_shard_bytes = max_shard_bytes;
      save(dir.path(), model, options);
      EXPECT_EQ(fs::exists(dir / "model.safetensors.index.json"), max_shard_bytes == 100);
      const LoadReport report = load_weights(dir.path(), back.ctx(), back.parameters());
      EXPECT_EQ(report.num_tensors, style == NameStyle::kModules ? 9 : 13);
      for (size_t i = 0; i < model.parameters().size(); ++i)
        EXPECT_EQ(values_of(back.parameters()[i]->value), values_of(model.parameters()[i]->value));
    }
}

TEST(ModelDirTest, Bf16KeepsInFp32WhatTransformersKeeps) {
  ScratchDir dir;
  Tiny model(Precision::kBf16);
  model.fill(1);
  SaveOptions options;
  options.dtype = SaveDType::kBF16;
  options.style = NameStyle::kModules;
  save(dir.path(), model, options);
  const SafetensorsFile file(dir / "model.safetensors");
  EXPECT_EQ(file.find("lm_head.weight")->dtype, FileDType::kBF16);
  EXPECT_EQ(file.find("model.layers.0.mlp.gate.weight")->dtype, FileDType::kBF16);
  EXPECT_EQ(file.find("model.layers.0.mlp.gate.tid2eid")->dtype, FileDType::kI64);
  EXPECT_EQ(file.find("model.layers.0.self_attn.sinks")->dtype, FileDType::kF32);
  EXPECT_EQ(file.find("model.layers.0.self_attn.kv_norm.weight")->dtype, FileDType::kF32);
  for (const auto& tensor : file.tensors())
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(file_dtype_bytes(tensor.dtype)), 0u);
}

TEST(ModelDirTest, MastersAndValuesAreBothFilled) {
  ScratchDir dir;
  Tiny model(Precision::kFp32), back(Precision::kBf16);
  model.fill(1);
  save(dir.path(), model, {});
  load_weights(dir.path(), back.ctx(), back.parameters());
  const auto& from = *model.parameters()[0];
  const auto& to = *back.parameters()[0];
  EXPECT_EQ(values_of(to.master), values_of(from.value));
  for (int64_t i = 0; i < from.value.size(); ++i)
    EXPECT_EQ(to.value.data<bf16>()[i].bits, bf16(from.value.data<float>()[i]).bits);
}

// HF -> ours -> HF: names, dtypes and bytes stay, in both precisions, also of tensors that the run holds rounded.
TEST(ModelDirTest, UntouchedTensorsAreByteEqual) {
  for (const auto dtype : {SaveDType::kF32, SaveDType::kBF16})
    for (const auto style : {NameStyle::kTransformers, NameStyle::kModules, NameStyle::kOfficial})
      for (const auto precision : {Precision::kFp32, Precision::kBf16}) {
        ScratchDir source, out;
        Tiny model(Precision::kFp32), back(precision);
        model.fill(1);
        SaveOptions options;
        options.dtype = dtype;
        options.style = style;
        save(source.path(), model, options);
        load_weights(source.path(), back.ctx(), back.parameters());
        SaveOptions again;
        again.source_dir = source.path();
        save(out.path(), back, again);
        EXPECT_EQ(contents(out.path()), contents(source.path()));
      }
}

TEST(ModelDirTest, MtpTensorsAreSkippedAndCarriedOver) {
  ScratchDir source, out;
  Tiny model(Precision::kFp32);
  auto& extra = model.vector("model.norm.weight", {3});  // its name is replaced in the file
  model.fill(1);
  save(source.path(), model, {});
  std::string bytes = read_file(source / "model.safetensors");
  const std::string own = "model.norm.weight", mtp = "mtp.0.norm.weight";
  ASSERT_EQ(own.size(), mtp.size());
  bytes.replace(bytes.find(own), own.size(), mtp);
  put(source / "model.safetensors", bytes);
  std::vector<layers::Parameter*> parameters = model.parameters();
  std::erase(parameters, &extra);
  const LoadReport report = load_weights(source.path(), model.ctx(), parameters);
  EXPECT_EQ(report.num_skipped, 1);
  SaveOptions options;
  options.source_dir = source.path();
  save_weights(out.path(), tiny_config(), model.ctx(), parameters, options);
  EXPECT_EQ(contents(out.path()), contents(source.path()));
}

TEST(ModelDirTest, AllFaultsAreNamedBeforeAnythingIsFilled) {
  ScratchDir dir;
  Tiny model(Precision::kFp32);
  model.fill(1);
  save(dir.path(), model, {});
  Tiny wrong(Precision::kFp32);
  wrong.parameters()[0]->name = "model.norm.weight";                        // missing, and embed_tokens is unknown
  wrong.parameters()[1]->shape = {4};                                       // sinks: wrong shape
  wrong.parameters()[2]->dtype = DType::kI64;                               // kv_norm: wrong dtype
  wrong.parameters()[5]->shape = wrong.parameters()[6]->shape = {3, 4, 3};  // a third expert
  const std::string message = load_error(dir.path(), wrong);
  EXPECT_THAT(message, HasSubstr(dir.path().string()));
  EXPECT_THAT(message, HasSubstr("missing: model.norm.weight [6, 4]"));
  EXPECT_THAT(message, HasSubstr("unknown: model.embed_tokens.weight in model.safetensors"));
  EXPECT_THAT(message,
              HasSubstr("wrong shape: model.layers.0.attn.attn_sink in model.safetensors is F32 [3], expected [4]"));
  EXPECT_THAT(message,
              HasSubstr("wrong dtype: model.layers.0.attn.norm.weight in model.safetensors is F32 [5], expected I64"));
  EXPECT_THAT(message, HasSubstr("missing: layers.0.ffn.experts.2.w2.weight of model.layers.0.mlp.experts.down_proj"));
  for (const auto* parameter : wrong.parameters())
    EXPECT_THAT(values_of(parameter->value), testing::Each(0.0)) << parameter->name;
}

TEST(ModelDirTest, ManyFaultsAreCounted) {
  ScratchDir dir;
  HandMade model(Precision::kFp32), empty(Precision::kFp32);
  for (int layer = 0; layer < 30; ++layer)
    model.vector("model.layers." + std::to_string(layer) + ".self_attn.sinks", {1});
  save(dir.path(), model, {});
  const std::string message = load_error(dir.path(), empty);
  EXPECT_THAT(message, AllOf(HasSubstr("30 tensors are wrong"), HasSubstr("and 10 more"), HasSubstr("layers.0."),
                             Not(HasSubstr("layers.29."))));
}

TEST(ModelDirTest, TensorsGivenTwiceOrOutOfRangeAreRefused) {
  ScratchDir dir;
  HandMade model(Precision::kFp32);
  model.vector("model.norm.weight", {1});
  put_safetensors(dir / "model.safetensors",
                  R"({"norm.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                  R"("model.norm.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                  8);
  EXPECT_THAT(load_error(dir.path(), model), HasSubstr("given twice: model.norm.weight"));
  ScratchDir table;
  Tiny tiny(Precision::kFp32);
  tiny.fill(1);
  tiny.parameters()[4]->value.data<int64_t>()[3] = 2;
  save(table.path(), tiny, {});
  EXPECT_THAT(load_error(table.path(), tiny), HasSubstr("tid2eid element 3 is expert 2, the model has 2"));
}

TEST(ModelDirTest, ConfigAndTokenizerComeAlong) {
  ScratchDir source, out;
  put(source / "tokenizer.json", "{\"t\": 1}");
  fs::create_directory(source / "encoding");
  put(source / "encoding/prose.txt", "constants");
  put(source / "generation_config.json", "{\"temperature\": 0.5}");
  put(source / "notes.txt", "not ours");
  Tiny model(Precision::kFp32);
  model.fill(1);
  SaveOptions options;
  options.source_dir = source.path();
  save(out.path(), model, options);
  EXPECT_EQ(read_file(out / "tokenizer.json"), "{\"t\": 1}");
  EXPECT_EQ(read_file(out / "encoding/prose.txt"), "constants");
  EXPECT_EQ(read_file(out / "generation_config.json"), "{\"temperature\": 0.5}");
  EXPECT_FALSE(fs::exists(out / "notes.txt"));
  const auto json = nlohmann::json::parse(read_file(out / "config.json"));
  EXPECT_EQ(json["note"], "kept");
  EXPECT_EQ(json["torch_dtype"], "float32");
  EXPECT_FALSE(json.contains("expert_dtype"));
  ScratchDir bare;
  save(bare.path(), model, {});
  EXPECT_EQ(nlohmann::json::parse(read_file(bare / "generation_config.json"))["eos_token_id"], 1);
}

TEST(ModelDirTest, OverwritesOnlyWhenAskedAndLeavesNoStaleWeights) {
  ScratchDir dir;
  Tiny model(Precision::kFp32);
  model.fill(1);
  SaveOptions options;
  options.max_shard_bytes = 100;
  save(dir.path(), model, options);
  put(dir / "notes.txt", "mine");
  const std::string refusal = error_of([&] { save(dir.path(), model, options); });
  EXPECT_THAT(refusal, AllOf(HasSubstr("not empty"), HasSubstr("config.json"), HasSubstr("overwrite")));
  options.overwrite = true;
  options.max_shard_bytes = 1 << 20;
  model.fill(2);
  save(dir.path(), model, options);
  EXPECT_EQ(read_file(dir / "notes.txt"), "mine");
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir.path())) names.push_back(entry.path().filename());
  EXPECT_THAT(names,
              testing::UnorderedElementsAre("config.json", "generation_config.json", "model.safetensors", "notes.txt"));
  Tiny back(Precision::kFp32);
  load_weights(dir.path(), back.ctx(), back.parameters());
  EXPECT_EQ(values_of(back.parameters()[0]->value), values_of(model.parameters()[0]->value));
}

TEST(ModelDirTest, PlacesThatCannotBeWrittenAreRefused) {
  ScratchDir dir;
  put(dir / "file", "x");
  EXPECT_THAT(error_of([&] { check_save_dir(dir / "file", true); }), HasSubstr("this is a file"));
  EXPECT_THAT(error_of([&] { check_save_dir(dir / "file" / "below", false); }), HasSubstr("below"));
  EXPECT_THAT(error_of([&] { check_save_dir("/proc/temper", false); }), HasSubstr("cannot create"));
  check_save_dir(dir / "new" / "deep", false);
  EXPECT_TRUE(fs::is_directory(dir / "new" / "deep"));
  EXPECT_THAT(error_of([&] { load_config(dir / "nowhere"); }), HasSubstr("no such directory"));
  EXPECT_THAT(error_of([&] { load_config(dir.path()); }), HasSubstr("config.json"));
}

// Directories written by transformers, with both spellings of names: every tensor is known, its configuration is read.
TEST(ModelDirTest, FixturesOfTransformersAreUnderstood) {
  const fs::path fixtures = fs::path(TEMPER_SOURCE_DIR) / "tests/fixtures/v4";
  int num_cases = 0;
  for (const auto& entry : fs::directory_iterator(fixtures)) {
    const model::Config config = load_config(entry.path());
    const TensorDir tensors(entry.path());
    for (const auto& [tensor, file] : tensors.items())
      EXPECT_TRUE(parse_tensor_name(tensor->name).has_value()) << entry.path() << " " << tensor->name;
    EXPECT_EQ(config.layer_types.size(), static_cast<size_t>(config.num_hidden_layers));
    ++num_cases;
  }
  EXPECT_GE(num_cases, 6);
}

}  // namespace
}  // namespace temper::checkpoint
