// Faults planted into the fast path, in one layer: verify finds each, and names layer, op and cause.
#include <gmock/gmock.h>

#include "backend/registry.h"
#include "base/error.h"
#include "base/scratch_dir.h"
#include "verify/tiny_dir.h"
#include "verify/verify.h"

namespace temper::verify::test {
namespace {

using backend::Backend;
using backend::CompressRanges;
using backend::In;
using backend::InOut;
using backend::OpTable;
using backend::Out;
using backend::Stream;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// The faulty calls of an op: those numbered [first, last) since the test began. Ops are plain functions, so this is the
// only way in.
struct Calls {
  int first, last, count = 0;
  bool faulty() { return count++ >= first && count <= last; }
};
Calls calls{0, 0};

const OpTable& right() { return backend::cpu().ops; }

void transposed_comb(Stream* stream, Out xo, In x, In y, In post, In comb) {
  if (!calls.faulty()) return right().hc_post_forward(stream, xo, x, y, post, comb);
  std::vector<float> values(static_cast<size_t>(comb.size()));
  const View transposed(values.data(), DType::kF32, comb.shape);
  right().copy(stream, transposed, comb.transpose(1, 2));
  right().hc_post_forward(stream, xo, x, y, post, transposed);
}

// A copy with the halves of the columns exchanged, in memory of its own.
View exchanged(Stream* stream, const View& view, std::vector<float>& memory) {
  memory.resize(static_cast<size_t>(view.size()));
  const View out(memory.data(), DType::kF32, view.shape);
  const int64_t half = view.dim(1) / 2;
  right().copy(stream, out.slice(1, 0, half), view.slice(1, half, 2 * half));
  right().copy(stream, out.slice(1, half, 2 * half), view.slice(1, 0, half));
  return out;
}

void exchanged_halves(Stream* stream, Out v, In z, In g, In ape, CompressRanges ranges) {
  if (z.dim(1) != 2 * v.dim(1) || !calls.faulty()) return right().compress_forward(stream, v, z, g, ape, ranges);
  std::vector<float> memory[3];
  right().compress_forward(stream, v, exchanged(stream, z, memory[0]), exchanged(stream, g, memory[1]),
                           exchanged(stream, ape, memory[2]), ranges);
}

void no_inverse_rotation(Stream* stream, Out y, In x, In table, In position, double sign) {
  if (sign < 0 && calls.faulty()) return right().copy(stream, y, x);
  right().rope(stream, y, x, table, position, sign);
}

void unnormalised_weights(Stream* stream, Out weight, In z, In index, double scaling) {
  if (!calls.faulty()) return right().router_weights_forward(stream, weight, z, index, scaling);
  for (int64_t t = 0; t < index.dim(0); ++t)
    for (int64_t k = 0; k < index.dim(1); ++k) {
      const float logit = z.data<float>()[t * z.dim(1) + index.data<int32_t>()[t * index.dim(1) + k]];
      weight.data<float>()[t * index.dim(1) + k] =
          static_cast<float>(scaling * std::sqrt(std::log1p(std::exp(double{logit}))));
    }
}

void rounded_to_bf16(Stream* stream, InOut c, In a, In b, double beta) {
  right().matmul(stream, c, a, b, beta);
  if (!calls.faulty()) return;
  for (int64_t m = 0; m < c.dim(0); ++m)
    for (int64_t n = 0; n < c.dim(1); ++n) {
      float& value = c.data<float>()[m * c.strides[0] + n * c.strides[1]];
      value = static_cast<float>(bf16(value));
    }
}

void second_best_expert(Stream* stream, Out index, In z, In bias) {
  right().router_topk(stream, index, z, bias);
  if (!calls.faulty()) return;
  int32_t* chosen = index.data<int32_t>() + 5 * index.dim(1);
  for (int32_t e = 0; e < z.dim(1); ++e)  // the first expert that token 5 has not chosen
    if (std::find(chosen, chosen + index.dim(1), e) == chosen + index.dim(1)) {
      chosen[0] = e;
      std::sort(chosen, chosen + index.dim(1));
      return;
    }
}

class Faults : public testing::Test {
 protected:
  // Findings of a run of the fixture whose op is wrong in its calls [first, last).
  template <class Function>
  std::string found(Function* OpTable::*op, Function* wrong, int first, int last,
                    const std::filesystem::path& dir = fixture("mixed_rate16")) {
    calls = {first, last};
    Backend faulty = backend::cpu();
    faulty.ops.*op = wrong;
    Options options;
    options.dir = dir;
    options.structure = false;
    options.fast = &faulty;
    const Report report = run(options, [](const std::string&) {});
    EXPECT_GE(calls.count, last) << "the fault was never reached";
    return report.findings.to_string(report.num_main_layers);
  }
};

TEST_F(Faults, ATransposedCombIsFound) {
  const std::string text = found(&OpTable::hc_post_forward, transposed_comb, 2, 3);
  EXPECT_THAT(text, AllOf(HasSubstr("FAILED layer 1, op hc_post_forward: xo_TMD differs from float64"),
                          HasSubstr("cause: comb is transposed"), HasSubstr("FAILED layer 1, streams: token")));
  EXPECT_THAT(text, AllOf(Not(HasSubstr("layer 0")), Not(HasSubstr("layer 2"))));
}

TEST_F(Faults, ExchangedHalvesOfACsaCompressorAreFound) {
  const std::string text = found(&OpTable::compress_forward, exchanged_halves, 0, 1);
  EXPECT_THAT(text, AllOf(HasSubstr("FAILED layer 1, op compress_forward"),
                          HasSubstr("cause: the halves of the CSA projections are exchanged")));
  EXPECT_THAT(text, AllOf(Not(HasSubstr("layer 0")), Not(HasSubstr("layer 2"))));
}

TEST_F(Faults, AMissingInverseRotationIsFound) {
  const std::string text = found(&OpTable::rope, no_inverse_rotation, 2, 3);
  EXPECT_THAT(text, AllOf(HasSubstr("FAILED layer 2, op rope"), HasSubstr("cause: the inverse rotation is missing")));
  EXPECT_THAT(text, AllOf(Not(HasSubstr("layer 0")), Not(HasSubstr("layer 1"))));
}

TEST_F(Faults, UnnormalisedRouterWeightsAreFound) {
  const std::string text = found(&OpTable::router_weights_forward, unnormalised_weights, 0, 1);
  EXPECT_THAT(text, AllOf(HasSubstr("FAILED layer 0, op router_weights_forward"),
                          HasSubstr("cause: the router's weights are not normalised"),
                          HasSubstr("FAILED layer 0, router: a token's weights sum to")));
  EXPECT_THAT(text, AllOf(Not(HasSubstr("layer 1")), Not(HasSubstr("layer 2"))));
}

TEST_F(Faults, AProductRoundedToBf16IsFoundWithItsWeight) {
  EXPECT_THAT(found(&OpTable::matmul, rounded_to_bf16, 1, 2),
              HasSubstr("FAILED layer 0, op matmul with model.layers.0.self_attn.q_b_proj.weight: c_MN differs"));
}

TEST_F(Faults, AWrongExpertIsFoundWithItsToken) {
  EXPECT_THAT(found(&OpTable::router_topk, second_best_expert, 0, 1),
              HasSubstr("FAILED layer 0, op router_topk with model.layers.0.mlp.gate.e_score_correction_bias: "
                        "index_TK of row 5 is not the reference's choice"));
}

TEST_F(Faults, AFaultInTheMtpBlockIsFound) {
  temper::test::ScratchDir directory;
  TinyDir::released().write(directory / "model");
  EXPECT_THAT(found(&OpTable::hc_post_forward, transposed_comb, 6, 7, directory / "model"),
              AllOf(HasSubstr("FAILED mtp 0, op hc_post_forward"), HasSubstr("cause: comb is transposed"),
                    HasSubstr("FAILED mtp 0, streams"), Not(HasSubstr("layer"))));
}

TEST_F(Faults, AReleasedDirectoryPasses) {
  temper::test::ScratchDir directory;
  TinyDir::released().write(directory / "model");
  EXPECT_THAT(found(&OpTable::hc_post_forward, transposed_comb, 0, 0, directory / "model"), IsEmpty());
}

class RightPath : public testing::TestWithParam<std::tuple<const char*, layers::Precision>> {};

TEST_P(RightPath, PassesEveryGate) {
  Options options;
  options.dir = fixture(std::get<0>(GetParam()));
  options.tokens.num_tokens = 50;
  options.precision = std::get<1>(GetParam());
  const Report report = run(options, [](const std::string&) {});
  EXPECT_EQ(report.findings.num_failed(), 0) << report.findings.to_string(report.num_main_layers);
  for (const auto& layer : report.json["self"]["layers"]) EXPECT_GT(layer["cosine"].get<double>(), 0.999);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, RightPath,
                         testing::Combine(testing::Values("csa_rate3", "csa_yarn", "hca_rate8", "mixed_rate16",
                                                          "official_spelling", "pro_order_rate32", "sliding"),
                                          testing::Values(layers::Precision::kFp32, layers::Precision::kBf16)));

TEST(MemoryLimit, TooFewBytesAreRefusedWithWhatWouldFit) {
  Options options;
  options.dir = fixture("sliding");
  options.structure = false;
  options.tokens.num_tokens = 20000;
  const auto message = [&] {
    try {
      run(options, [](const std::string&) {});
    } catch (const Error& error) {
      return std::string(error_code_name(error.code())) + ": " + error.what();
    }
    return std::string();
  };
  options.memory_bytes = int64_t{48} << 20;
  EXPECT_THAT(message(), testing::MatchesRegex(".*20000 tokens need .* of memory, --memory allows 48.00 MiB; [0-9]+ "
                                               "tokens would fit"));
  options.memory_bytes = 1 << 20;
  EXPECT_THAT(message(), HasSubstr("one token needs"));
}

}  // namespace
}  // namespace temper::verify::test
