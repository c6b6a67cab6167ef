#include "checkpoint/weight_source.h"

#include <gmock/gmock.h>

#include "checkpoint/model_dir.h"
#include "checkpoint/official_dir.h"

namespace temper::checkpoint {
namespace {

using layers::Precision;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

std::string load_error(const OfficialDir& made, OfficialModel& model, const LoadOptions& options = {}) {
  ScratchDir dir;
  made.write(dir.path());
  return error_of([&] { load_weights(dir.path(), model.ctx(), model.parameters(), options); });
}

LoadReport load(const OfficialDir& made, OfficialModel& model, const LoadOptions& options = {}) {
  ScratchDir dir;
  made.write(dir.path());
  return load_weights(dir.path(), model.ctx(), model.parameters(), options);
}

void expect_values(const OfficialDir& made, const layers::Parameter& parameter) {
  const auto& expected = made.values().at(parameter.name);
  const View& record = parameter.master.defined() ? parameter.master : parameter.value;
  std::vector<double> rounded = expected;
  for (double& value : rounded) value = parameter.dtype == DType::kBF16 ? bf16(value) : value;
  EXPECT_EQ(values_of(record), record.dtype == DType::kBF16 ? rounded : expected) << parameter.name;
  EXPECT_EQ(values_of(parameter.value), rounded) << parameter.name;
}

TEST(WeightSourceTest, EveryMixtureIsReadToTheBit) {
  const OfficialStyle styles[] = {{.fp8 = false, .fp4 = false},
                                  {.fp8 = true, .fp4 = false},
                                  {.fp8 = false, .fp4 = true, .prefix = "model."},
                                  {.scale_suffix = "weight_scale_inv"},
                                  {.scale_dtype = FileDType::kF32, .prefix = "model."},
                                  {.mtp = true}};
  for (const auto& style : styles)
    for (const auto precision : {Precision::kFp32, Precision::kBf16}) {
      const OfficialDir made(style);
      OfficialModel model(precision, style.mtp);
      const LoadReport report = load(made, model);
      for (const auto* parameter : model.parameters()) expect_values(made, *parameter);
      EXPECT_EQ(report.num_quantised, 2 * style.fp8 + 6 * style.fp4 + 2 * style.mtp);
      EXPECT_EQ(report.num_skipped, 0);
    }
}

TEST(WeightSourceTest, OnlyTheParametersAskedForAreFilled) {
  ScratchDir dir;
  const OfficialDir made({.mtp = true});
  made.write(dir.path());
  const WeightSource source(dir.path());
  OfficialModel model(Precision::kBf16, false);
  source.refuse_misfits(source.fit(model.parameters(), true));
  std::vector<layers::Parameter*> layer = {model.parameters()[3], model.parameters()[7]};
  EXPECT_EQ(source.load(model.ctx(), source.fit(layer, false)).num_tensors, 5);
  for (const auto* parameter : model.parameters())
    if (std::count(layer.begin(), layer.end(), parameter) == 1)
      expect_values(made, *parameter);
    else
      EXPECT_THAT(values_of(parameter->value), Each(0.0)) << parameter->name;
}

TEST(WeightSourceTest, WrongScalesAreNamedWithWhatIsExpected) {
  OfficialModel model(Precision::kFp32, false);
  OfficialDir without({});
  without.remove("layers.0.attn.wq_a.scale");
  without.remove("layers.0.ffn.experts.1.w2.weight");
  EXPECT_THAT(load_error(without, model),
              AllOf(HasSubstr("wrong encoding: layers.0.attn.wq_a.weight is F8_E4M3 [130, 64] and has no scale"),
                    HasSubstr("F8_E8M0 or F32 [2, 1]"),
                    HasSubstr("unknown: layers.0.ffn.experts.1.w2.scale in model.safetensors is the scale of "
                              "layers.0.ffn.experts.1.w2.weight, which is not there"),
                    HasSubstr("missing: layers.0.ffn.experts.1.w2.weight of")));
  OfficialDir twice({});
  twice.tensors().emplace_back("layers.0.attn.wq_a.weight_scale_inv", FileDType::kF32, std::vector<int64_t>{2, 1});
  EXPECT_THAT(load_error(twice, model), HasSubstr("is a second scale of layers.0.attn.wq_a.weight"));
  OfficialDir wrong({});
  wrong.tensor("layers.0.ffn.experts.0.w1.scale").shape = {64, 1};
  EXPECT_THAT(load_error(wrong, model), HasSubstr("packed FP4 needs a scale F8_E8M0 or F32 [32, 2]"));
  for (const auto* parameter : model.parameters()) EXPECT_THAT(values_of(parameter->value), Each(0.0));
}

TEST(WeightSourceTest, QuantisedTensorsMustFitTheirParameter) {
  OfficialModel model(Precision::kFp32, false);
  model.parameters()[3]->shape = {64, 130};
  model.parameters()[4]->dtype = DType::kI64;
  EXPECT_THAT(
      load_error(OfficialDir({}), model),
      AllOf(HasSubstr("wrong shape: layers.0.attn.wq_a.weight in model.safetensors is FP8 [130, 64], expected [64, "),
            HasSubstr("wrong dtype: layers.0.attn.wo_a.weight in model.safetensors is FP8 [4, 257], expected I64")));
}

TEST(WeightSourceTest, ElementsThatAreNotFiniteAreNamed) {
  OfficialModel model(Precision::kFp32, false);
  OfficialDir code({});
  code.tensor("layers.0.attn.wq_a.weight").at(129 * 64 + 5) = 0xFF;
  EXPECT_THAT(load_error(code, model), HasSubstr("layers.0.attn.wq_a.weight (FP8 [130, 64]): element [129, 5]"));
  OfficialDir scale({});
  scale.tensor("layers.0.ffn.experts.1.w3.scale").at(2 * 3 + 1) = 255;
  EXPECT_THAT(load_error(scale, model), HasSubstr("experts.1.w3.weight (FP4 [32, 64]): element [3, 32]"));
  OfficialDir plain({});
  plain.tensor("layers.0.attn.attn_sink").set_f32(2, INFINITY);
  EXPECT_THAT(load_error(plain, model), HasSubstr("layers.0.attn.attn_sink (F32 [3]): element [0, 2]"));
}

TEST(WeightSourceTest, WhatMayBeMissingKeepsItsValues) {
  OfficialDir made({});
  made.remove("layers.0.attn.attn_sink");
  made.remove("layers.0.ffn.experts.1.w3.weight");
  made.remove("layers.0.ffn.experts.1.w3.scale");
  OfficialModel model(Precision::kFp32, false);
  model.fill(3);
  const auto sinks = values_of(model.parameters()[1]->value), experts = values_of(model.parameters()[7]->value);
  EXPECT_THAT(load_error(made, model, {.allow_missing = "sinks"}),
              HasSubstr("missing: model.layers.0.self_attn.sinks [3]"));  // the whole name must match
  const LoadReport report = load(made, model, {.allow_missing = R"(.*\.sinks|layers\.0\.ffn\.experts\.1\..*)"});
  EXPECT_THAT(report.missing, ElementsAre("model.layers.0.self_attn.sinks", "layers.0.ffn.experts.1.w3.weight"));
  EXPECT_EQ(values_of(model.parameters()[1]->value), sinks);
  const auto now = values_of(model.parameters()[7]->value);
  const size_t w3 = (64 + 32) * 64;  // rows of expert 1
  EXPECT_TRUE(std::equal(now.begin() + w3, now.end(), experts.begin() + w3));
  EXPECT_FALSE(std::equal(now.begin(), now.begin() + w3, experts.begin()));
  EXPECT_THAT(load_error(made, model, {.allow_missing = "(sinks"}),
              AllOf(HasSubstr("invalid argument"), HasSubstr("\"(sinks\" is not a regular expression")));
}

TEST(WeightSourceTest, TensorsOfTheMtpBlockAreSkippedWhereTheModelHasNone) {
  OfficialModel model(Precision::kFp32, false);
  EXPECT_EQ(load(OfficialDir({.mtp = true}), model).num_skipped, 3);
}

TEST(WeightSourceTest, AnotherMtpIsToldByItsTensorsAndRefused) {
  const auto kind_of = [](const OfficialDir& made) {
    ScratchDir dir;
    made.write(dir.path());
    return WeightSource(dir.path()).mtp_kind();
  };
  EXPECT_EQ(kind_of(OfficialDir({})), MtpKind::kNone);
  OfficialDir copies({.mtp = true});
  copies.tensors().emplace_back("mtp.0.head.weight", FileDType::kBF16, std::vector<int64_t>{6, 64});
  EXPECT_EQ(kind_of(copies), MtpKind::kV4);
  OfficialModel with(Precision::kFp32, true), without(Precision::kFp32, false);
  EXPECT_EQ(load(copies, with).num_skipped, 1);
  for (const char* foreign : {"mtp.1.enorm.weight", "mtp.0.markov_head.weight", "mtp.0.attn.wq_c.weight"}) {
    OfficialDir other({.mtp = true});
    other.tensors().emplace_back(foreign, FileDType::kBF16, std::vector<int64_t>{2, 2});
    EXPECT_EQ(kind_of(other), MtpKind::kOther) << foreign;
    EXPECT_THAT(load_error(other, with),
                AllOf(HasSubstr("unsupported"), HasSubstr(std::string(foreign) + " BF16 [2, 2]")));
    EXPECT_EQ(load(other, without).num_skipped, 4);
  }
  OfficialDir shape({.fp8 = false, .mtp = true});
  shape.remove("mtp.0.e_proj.weight");
  shape.tensors().emplace_back("mtp.0.e_proj.weight", FileDType::kBF16, std::vector<int64_t>{64, 128});
  EXPECT_EQ(kind_of(shape), MtpKind::kOther);
}

}  // namespace
}  // namespace temper::checkpoint
