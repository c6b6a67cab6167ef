// Two directories, and logits from elsewhere.
#include <gmock/gmock.h>

#include <cstring>

#include "base/error.h"
#include "base/scratch_dir.h"
#include "verify/tiny_dir.h"
#include "verify/verify.h"

namespace temper::verify::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

Report compare(const std::filesystem::path& dir, const std::filesystem::path& against) {
  Options options;
  options.dir = dir, options.against = against;
  options.structure = options.self = false;
  options.tokens.num_tokens = 24;
  return run(options, [](const std::string&) {});
}
std::string found(const Report& report) { return report.findings.to_string(report.num_main_layers); }

class Against : public testing::Test {
 protected:
  Against() { right_.write(directory_ / "right"); }
  Report compare_wrong() {
    wrong_.write(directory_ / "wrong");
    return compare(directory_ / "wrong", directory_ / "right");
  }
  std::string found_wrong() { return found(compare_wrong()); }

  temper::test::ScratchDir directory_;
  TinyDir right_ = TinyDir::released(), wrong_ = right_;
};

TEST_F(Against, EqualDirectoriesAreEqual) {
  const Report report = compare_wrong();
  EXPECT_THAT(found(report), IsEmpty());
  EXPECT_EQ(report.json["against"]["logits"]["mean_kl"].get<double>(), 0);
  EXPECT_EQ(report.json["against"]["logits"]["top1_agreement"].get<double>(), 1);
  for (const auto& layer : report.json["against"]["layers"])
    EXPECT_THAT(layer["differing_tensors"], testing::SizeIs(0));
}

TEST_F(Against, TheWrongNibbleOrderIsFound) {
  for (int expert = 0; expert < 5; ++expert)
    for (const char* part : {"w1", "w2", "w3"})
      for (std::byte& byte : wrong_.at(fmt::format("layers.1.ffn.experts.{}.{}.weight", expert, part)).bytes)
        byte = byte >> 4 | byte << 4;
  const std::string text = found_wrong();
  EXPECT_THAT(text, AllOf(HasSubstr("FAILED layer 1, streams: token"), HasSubstr("cause: layers.1.ffn.experts."),
                          HasSubstr("the nibbles of packed FP4 are in the wrong order")));
  EXPECT_THAT(text, AllOf(Not(HasSubstr("layer 0")), Not(HasSubstr("layer 2"))));
}

TEST_F(Against, ExchangedHalvesOfACompressorAreFound) {
  auto& bytes = wrong_.at("layers.1.attn.compressor.wkv.weight").bytes;
  std::rotate(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2), bytes.end());
  EXPECT_THAT(found_wrong(), AllOf(HasSubstr("FAILED layer 1, streams"),
                                   HasSubstr("layers.1.attn.compressor.wkv.weight differs by 1."),
                                   HasSubstr("the two halves of its rows are exchanged"), Not(HasSubstr("layer 2"))));
}

TEST_F(Against, AnMtpBlockThatIsOtherIsFound) {
  wrong_.at("mtp.0.enorm.weight").as<float>()[3] *= -20;
  EXPECT_THAT(found_wrong(), AllOf(HasSubstr("FAILED mtp 0, streams"), HasSubstr("mtp.0.enorm.weight differs"),
                                   Not(HasSubstr("layer"))));
}

TEST_F(Against, AScaleThatIsOffIsFound) {
  for (std::byte& byte : wrong_.at("layers.2.attn.wo_b.scale").bytes) byte = std::byte(std::to_integer<int>(byte) + 1);
  EXPECT_THAT(found_wrong(), AllOf(HasSubstr("FAILED layer 2, streams"), HasSubstr("layers.2.attn.wo_b.weight"),
                                   HasSubstr("it is 2 times the other")));
}

TEST_F(Against, AnotherHeadIsFoundInTheLogits) {
  for (int i = 0; i < 48 * 64; ++i) wrong_.at("head.weight").as<float>()[i] *= i % 2 ? 1.0f : -1.0f;
  const std::string text = found_wrong();
  EXPECT_THAT(text, AllOf(HasSubstr("FAILED logits: mean KL divergence"), HasSubstr("cause: head.weight differs")));
  EXPECT_THAT(text, Not(HasSubstr("layer")));
}

TEST_F(Against, OtherShapesAreRefused) {
  try {
    compare(fixture("sliding"), fixture("mixed_rate16"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("are models of different shapes: the first has"));
  }
}

class Transformers : public testing::TestWithParam<const char*> {};

TEST_P(Transformers, LogitsAgree) {
  const Report report = compare(fixture(GetParam()), fixture(GetParam()) / "golden.safetensors");
  EXPECT_EQ(report.findings.num_failed(), 0) << found(report);
  ASSERT_GE(report.json["against"]["sequences"].size(), 2u);
  for (const auto& sequence : report.json["against"]["sequences"]) {
    EXPECT_LT(sequence["mean_kl"].get<double>(), 1e-9);
    EXPECT_GT(sequence["mean_cosine"].get<double>(), 1 - 1e-9);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Transformers,
                         testing::Values("csa_rate3", "csa_yarn", "hca_rate8", "mixed_rate16", "official_spelling",
                                         "pro_order_rate32", "sliding"));

TEST(Logits, OfAFaultyModelFailWithThePlaceWhereTheyBegin) {
  temper::test::ScratchDir directory;
  TinyDir wrong = TinyDir::read(fixture("csa_yarn"));
  for (auto& [name, tensor] : wrong.tensors())
    if (name.find("compressor.norm") != std::string::npos || name.find("compressor.kv_norm") != std::string::npos)
      for (int64_t i = 0; i < tensor.info.size(); ++i) tensor.as<float>()[i] *= -4;
  wrong.write(directory / "wrong");
  EXPECT_THAT(found(compare(directory / "wrong", fixture("csa_yarn") / "golden.safetensors")),
              AllOf(HasSubstr("FAILED logits.0: mean KL divergence"),
                    HasSubstr("begin to differ at position 3, where the first entry of rate 4 becomes visible")));
}

TEST(Logits, ThatAreMisshapenAreRefused) {
  temper::test::ScratchDir directory;
  TinyDir file = TinyDir::read(fixture("sliding"));
  Tensor& ids = file.tensors()["input_ids.0"];
  ids.info.name = "input_ids.0", ids.info.dtype = checkpoint::FileDType::kI64, ids.info.shape = {2};
  ids.bytes.resize(16);
  Tensor& logits = file.tensors()["logits.0"];
  logits.info.name = "logits.0", logits.info.shape = {2, 47};
  logits.bytes.resize(2 * 47 * 4);
  file.write(directory / "other");
  try {
    compare(fixture("sliding"), directory / "other/model.safetensors");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("logits.0 is F32 [2, 47], expected F32, F16 or BF16 [2, 48]"));
  }
}

}  // namespace
}  // namespace temper::verify::test
