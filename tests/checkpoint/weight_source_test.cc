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

// Makes a stack of matrices that of one rank out of as many as it has matrices.
void keep_one_expert(layers::Parameter& p, int64_t rank) {
  p.part = {p.shape, 0, rank};
  p.shape[0] = 1;
  p.value = p.value.first(1);
  if (p.master.defined()) p.master = p.master.first(1);
}

std::vector<double> slice(const std::vector<double>& values, int64_t begin, int64_t count) {
  return {values.begin() + begin, values.begin() + begin + count};
}

TEST(WeightSourceTest, ARankReadsItsExpertsOnly) {
  ScratchDir one_by_one, stacked;
  OfficialDir({}).write(one_by_one.path());
  for (const auto precision : {Precision::kFp32, Precision::kBf16}) {
    OfficialModel whole(precision, false);
    const int64_t whole_bytes = load_weights(one_by_one.path(), whole.ctx(), whole.parameters()).num_bytes;
    SaveOptions options{.dtype = SaveDType::kF32, .style = NameStyle::kModules, .overwrite = true};
    model::Config config;
    config.source = R"({"model_type": "deepseek_v4"})";
    save_weights(stacked.path(), config, whole.ctx(), whole.parameters(), options);
    for (const auto* dir : {&one_by_one, &stacked})
      for (int64_t rank = 0; rank < 2; ++rank) {
        OfficialModel model(precision, false);
        for (const size_t i : {7, 8}) keep_one_expert(*model.parameters()[i], rank);
        const LoadReport report = load_weights(dir->path(), model.ctx(), model.parameters());
        for (size_t i = 0; i < model.parameters().size(); ++i) {
          const layers::Parameter &p = *model.parameters()[i], &all = *whole.parameters()[i];
          const int64_t begin = p.part.begin * p.shape.size();
          EXPECT_EQ(values_of(p.value), slice(values_of(all.value), begin, p.shape.size())) << p.name;
          if (p.master.defined())
            EXPECT_EQ(values_of(p.master), slice(values_of(all.master), begin, p.shape.size())) << p.name;
        }
        if (dir == &one_by_one) EXPECT_LT(report.num_bytes, whole_bytes);
      }
  }
  OfficialModel model(Precision::kFp32, false);
  for (const size_t i : {7, 8}) keep_one_expert(*model.parameters()[i], 0);
  OfficialDir without({});
  without.remove("layers.0.ffn.experts.1.w2.weight"), without.remove("layers.0.ffn.experts.1.w2.scale");
  EXPECT_THAT(load_error(without, model), HasSubstr("missing: layers.0.ffn.experts.1.w2.weight of"));
}

// Half of the rows: of matrices in every encoding, and of vectors.
TEST(WeightSourceTest, ARankReadsItsRowsOnly) {
  const OfficialDir made({});
  for (const auto precision : {Precision::kFp32, Precision::kBf16})
    for (const bool is_shared : {false, true})
      for (int64_t rank = 0; rank < 2; ++rank) {
        OfficialModel whole(precision, false), model(precision, false);
        load(made, whole);
        int num_matrices = 0, num_vectors = 0;
        for (layers::Parameter* p : model.parameters()) {
          if (p->dtype == DType::kI64 || p->shape.rank() > 2 || p->shape[0] % 2 != 0 ||
              p->name.find(".gate.") != std::string::npos)
            continue;
          ++(p->shape.rank() == 1 ? num_vectors : num_matrices);
          p->part = {p->shape, 0, rank * p->shape[0] / 2};
          p->shape[0] /= 2;
          p->value = p->value.first(p->shape[0]);
          if (p->master.defined()) p->master = p->master.first(p->shape[0]);
          if (!is_shared) continue;
          p->share = {1, 2};
          if (p->master.defined()) p->master = p->owned(p->master);
        }
        EXPECT_GT(num_matrices, 2);
        EXPECT_GT(num_vectors, 0);
        load(made, model);
        for (size_t i = 0; i < model.parameters().size(); ++i) {
          const layers::Parameter &p = *model.parameters()[i], &all = *whole.parameters()[i];
          const int64_t begin = p.whole_index(0);
          EXPECT_EQ(values_of(p.value), slice(values_of(all.value), begin, p.shape.size())) << p.name;
          if (p.master.defined())
            EXPECT_EQ(values_of(p.master), slice(values_of(all.master), begin + p.owned_begin(), p.num_owned()))
                << p.name;
        }
      }
}

TEST(WeightSourceTest, ARankReadsThePieceThatItUpdates) {
  const OfficialDir made({});
  for (const auto precision : {Precision::kFp32, Precision::kBf16})
    for (const bool is_value_whole : {true, false})
      for (int64_t rank = 0; rank < 3; ++rank) {
        OfficialModel whole(precision, false), model(precision, false);
        load(made, whole);
        for (layers::Parameter* p : model.parameters()) {
          if (p->dtype == DType::kI64) continue;
          p->share = {rank, 3};
          if (p->master.defined()) p->master = p->owned(p->master);
          if (is_value_whole) continue;
          p->value_piece = p->owned(p->value);
          p->value = {};  // what is there for one layer at a time
        }
        load(made, model);
        for (size_t i = 0; i < model.parameters().size(); ++i) {
          const layers::Parameter &p = *model.parameters()[i], &all = *whole.parameters()[i];
          const auto of_owned = [&](const View& view) {
            return slice(values_of(view), p.owned_begin(), p.num_owned());
          };
          if (p.value.defined())
            EXPECT_EQ(values_of(p.value), values_of(all.value)) << p.name;
          else
            EXPECT_EQ(values_of(p.value_piece), of_owned(all.value)) << p.name;
          if (p.master.defined()) EXPECT_EQ(values_of(p.master), of_owned(all.master)) << p.name;
        }
      }
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
