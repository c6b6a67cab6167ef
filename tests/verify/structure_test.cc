// temper verify, structure: what is wrong with a directory is found and its layer and tensor named.
#include "verify/structure.h"

#include <gmock/gmock.h>

#include <limits>

#include "base/scratch_dir.h"
#include "checkpoint/model_dir.h"
#include "model/model.h"
#include "verify/tiny_dir.h"
#include "verify/verify.h"

namespace temper::verify::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

Report check(const TinyDir& tiny) {
  temper::test::ScratchDir directory;
  tiny.write(directory / "model");
  Options options;
  options.dir = directory / "model";
  options.self = false;
  return run(options, [](const std::string&) {});
}

// The findings as a person sees them.
std::string found(const Report& report) { return report.findings.to_string(report.num_main_layers); }
std::string found(const TinyDir& tiny) { return found(check(tiny)); }

class Structure : public testing::Test {
 protected:
  TinyDir tiny_ = TinyDir::released();
};

TEST_F(Structure, AReleasedDirectoryPasses) {
  const Report report = check(tiny_);
  EXPECT_THAT(found(report), IsEmpty());
  EXPECT_TRUE(report.json["passed"].get<bool>());
  const auto& layers = report.json["structure"]["layers"];
  ASSERT_EQ(layers.size(), 5u);
  EXPECT_EQ(layers[1]["encodings"], (nlohmann::json{"F32", "FP4", "FP8", "I64"}));
  EXPECT_EQ(layers[2]["expert_rms"].size(), 5u);
}

class Fixtures : public testing::TestWithParam<const char*> {};

TEST_P(Fixtures, ADirectoryOfTransformersPasses) {
  EXPECT_EQ(found(TinyDir::read(fixture(GetParam()))),
            "note   mtp: config.json speaks of an MTP block, the files have none\n");
}

INSTANTIATE_TEST_SUITE_P(All, Fixtures,
                         testing::Values("csa_rate3", "csa_yarn", "hca_rate8", "mixed_rate16", "official_spelling",
                                         "pro_order_rate32", "sliding"));

TEST_F(Structure, NamesMissingAndUnknownTensorsAndWrongShapes) {
  tiny_.tensors().erase("layers.1.ffn.experts.3.w2.weight");
  tiny_.tensors().erase("layers.1.ffn.experts.3.w2.scale");
  tiny_.tensors().erase("layers.2.attn.attn_sink");
  Tensor stray = tiny_.at("norm.weight");
  stray.info.name = "layers.0.attn.wq_c.weight";
  tiny_.tensors()[stray.info.name] = stray;
  tiny_.at("layers.1.attn_norm.weight").info.shape = {8, 8};
  EXPECT_THAT(found(tiny_), AllOf(HasSubstr("layer 1, weights: missing: layers.1.ffn.experts.3.w2.weight of"),
                                  HasSubstr("layer 2, weights: missing: model.layers.2.self_attn.sinks [4]"),
                                  HasSubstr("layer 0, weights: unknown: layers.0.attn.wq_c.weight"),
                                  HasSubstr("layer 1, weights: wrong shape: layers.1.attn_norm.weight")));
}

TEST_F(Structure, NamesAWeightThatLostItsScale) {
  tiny_.tensors().erase("layers.0.attn.wq_a.scale");
  EXPECT_THAT(found(tiny_), AllOf(HasSubstr("layers.0.attn.wq_a.weight"), HasSubstr("has no scale")));
}

TEST_F(Structure, FindsNaNInOneTensor) {
  tiny_.at("layers.1.attn.compressor.wkv.weight").as<float>()[70] = std::numeric_limits<float>::quiet_NaN();
  tiny_.at("layers.1.attn.compressor.wkv.weight").as<float>()[80] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(found(tiny_),
              AllOf(HasSubstr("FAILED layer 1, layers.1.attn.compressor.wkv.weight: 1 NaN and 1 infinite"),
                    HasSubstr("the first at [1, 6]")));
}

TEST_F(Structure, FindsScalesThatNoRuleWrites) {
  tiny_.at("layers.2.ffn.experts.4.w1.scale").bytes[5] = std::byte{255};
  tiny_.at("layers.0.attn.wkv.scale").bytes[0] = std::byte{0};
  const std::string text = found(tiny_);
  EXPECT_THAT(text, HasSubstr("FAILED layer 2, layers.2.ffn.experts.4.w1.scale: 1 NaN (E8M0: 255) and 0 zero"));
  EXPECT_THAT(text, HasSubstr("the first at [2, 1]"));
  EXPECT_THAT(text, HasSubstr("FAILED layer 0, layers.0.attn.wkv.scale: 0 NaN (E8M0: 255) and 1 zero"));
  EXPECT_THAT(text, HasSubstr("FAILED layer 2, layers.2.ffn.experts.4.w1.weight: 32 NaN"));
}

TEST_F(Structure, FindsAHashTableOutOfRange) {
  tiny_.at("layers.0.ffn.gate.tid2eid").as<int64_t>()[7] = 5;
  EXPECT_THAT(found(tiny_), HasSubstr("FAILED layer 0, layers.0.ffn.gate.tid2eid: 1 of 96 entries are none of the 5 "
                                      "experts; token 3 slot 1 is expert 5"));
}

TEST_F(Structure, FindsDeadAndEqualExperts) {
  for (const char* part : {"w1", "w2", "w3"}) {
    auto& bytes = tiny_.at(fmt::format("layers.1.ffn.experts.2.{}.weight", part)).bytes;
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
  }
  for (const char* leaf : {"w3.weight", "w3.scale"})
    tiny_.at(fmt::format("layers.2.ffn.experts.4.{}", leaf)).bytes =
        tiny_.at(fmt::format("layers.2.ffn.experts.1.{}", leaf)).bytes;
  const std::string text = found(tiny_);
  EXPECT_THAT(text, HasSubstr("FAILED layer 1, expert 2: dead"));
  EXPECT_THAT(text, HasSubstr("FAILED layer 2, experts: w3 of expert 4 is byte for byte w3 of expert 1"));
  EXPECT_THAT(text, Not(HasSubstr("layer 1, experts")));
}

TEST_F(Structure, FindsNormsAndRouterRowsOfZeros) {
  auto& norm = tiny_.at("layers.0.attn.kv_norm.weight").bytes;
  std::fill(norm.begin(), norm.end(), std::byte{0});
  auto& router = tiny_.at("layers.2.ffn.gate.weight");
  std::fill_n(router.as<float>() + 3 * 64, 64, 0.0f);
  EXPECT_THAT(found(tiny_), AllOf(HasSubstr("layer 0, layers.0.attn.kv_norm.weight: a norm whose weights are all zero"),
                                  HasSubstr("layer 2, layers.2.ffn.gate.weight: row 3, of expert 3, is zero")));
}

TEST_F(Structure, OddNumbersAreNotes) {
  tiny_.at("layers.1.ffn.gate.bias").as<float>()[0] = 1000;
  tiny_.at("layers.0.ffn.experts.0.w2.scale").bytes[0] = std::byte{2};
  const Report report = check(tiny_);
  EXPECT_EQ(report.findings.num_failed(), 0);
  EXPECT_THAT(found(report), AllOf(HasSubstr("note   layer 1, layers.1.ffn.gate.bias"),
                                   HasSubstr("note   layer 0, layers.0.ffn.experts.0.w2.scale: 1 of 64 scales")));
}

}  // namespace
}  // namespace temper::verify::test
