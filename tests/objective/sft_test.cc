#include "objective/sft.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace temper::objective {
namespace {

using Reduction = ObjectiveOptions::Reduction;

// Two documents: three targets and one, weights 1 except 0.5 for the last.
layers::MicroBatch two_documents() {
  layers::MicroBatch batch;
  batch.tokens = {1, 2, 3, 4, 5, 6};
  batch.cu_seqlens = {0, 4, 6};
  batch.targets = {2, 3, 4, -1, 6, -1};
  batch.weights = {1, 1, 1, 0, 0.5, 0};
  return batch;
}
const std::vector<double> kLogp = {-1, -2, -3, 0, -4, 0};
const std::vector<int32_t> kBest = {2, 9, 4, 0, 6, 0};

// L as a function of the log-probabilities, to difference against token_weights.
double loss(const Objective& objective, const layers::MicroBatch& batch, const std::vector<double>& logp, double z) {
  std::vector<double> g(logp.size());
  return objective.token_weights(batch, logp, kBest, z, g).loss / z;
}

TEST(SftTest, TokenMean) {
  const Sft sft({});
  const auto batch = two_documents();
  const double z = sft.count(batch);
  EXPECT_DOUBLE_EQ(z, 3.5);
  std::vector<double> g(6, 77.0);
  const Sums sums = sft.token_weights(batch, kLogp, kBest, z, g);
  EXPECT_DOUBLE_EQ(sums.loss, 1 + 2 + 3 + 0.5 * 4);
  EXPECT_EQ(sums.num_targets, 4);
  EXPECT_EQ(sums.num_correct, 3);
  const std::vector<double> want = {-1 / 3.5, -1 / 3.5, -1 / 3.5, 0, -0.5 / 3.5, 0};
  for (int t = 0; t < 6; ++t) EXPECT_DOUBLE_EQ(g[t], want[t]) << t;
}

TEST(SftTest, SampleMeanGivesEveryDocumentItsWeight) {
  const Sft sft({.reduction = Reduction::kSample});
  const auto batch = two_documents();
  const double z = sft.count(batch);
  EXPECT_DOUBLE_EQ(z, 1.5);
  EXPECT_NEAR(loss(sft, batch, kLogp, z), (2.0 + 0.5 * 4) / 1.5, 1e-12);
}

TEST(SftTest, WeightsAreTheDerivativeOfTheLoss) {
  for (Reduction reduction : {Reduction::kToken, Reduction::kSample}) {
    const Sft sft({.reduction = reduction});
    const auto batch = two_documents();
    const double z = 2 * sft.count(batch);  // another micro-batch holds the other half
    std::vector<double> g(6);
    sft.token_weights(batch, kLogp, kBest, z, g);
    for (int t = 0; t < 6; ++t) {
      auto up = kLogp, down = kLogp;
      up[t] += 0.25, down[t] -= 0.25;
      EXPECT_NEAR(g[t], (loss(sft, batch, up, z) - loss(sft, batch, down, z)) / 0.5, 1e-12) << t;
    }
  }
}

TEST(SftTest, ConstantWeightsAreThoseOfTheTokens) {
  for (Reduction reduction : {Reduction::kToken, Reduction::kSample}) {
    const Sft sft({.reduction = reduction});
    const auto batch = two_documents();
    std::vector<double> g(6), constant(6, 77.0);
    sft.token_weights(batch, kLogp, kBest, 3.5, g);
    EXPECT_TRUE(sft.constant_weights(batch, 3.5, constant));
    EXPECT_EQ(constant, g);
  }
  std::vector<double> untouched(6, 77.0);
  EXPECT_FALSE(Sft({.dft = true}).constant_weights(two_documents(), 3.5, untouched));
}

TEST(SftTest, DftWeighsByProbability) {
  const Sft sft({.dft = true});
  const auto batch = two_documents();
  std::vector<double> g(6);
  const Sums sums = sft.token_weights(batch, kLogp, kBest, 3.5, g);
  EXPECT_NEAR(sums.loss, std::exp(-1) + 2 * std::exp(-2) + 3 * std::exp(-3) + 0.5 * 4 * std::exp(-4), 1e-12);
  EXPECT_DOUBLE_EQ(g[1], -std::exp(-2) / 3.5);  // p is a constant of the derivative
}

TEST(SftTest, BatchWithoutTargetsContributesNothing) {
  layers::MicroBatch batch;
  batch.tokens = {1, 2}, batch.cu_seqlens = {0, 2}, batch.targets = {-1, -1}, batch.weights = {0, 0};
  for (Reduction reduction : {Reduction::kToken, Reduction::kSample}) {
    const Sft sft({.reduction = reduction});
    EXPECT_EQ(sft.count(batch), 0);
    std::vector<double> g = {5, 5};
    EXPECT_EQ(sft.token_weights(batch, std::vector<double>(2), std::vector<int32_t>(2), 1, g).loss, 0);
    EXPECT_EQ(g, (std::vector<double>{0, 0}));
  }
}

ErrorCode refusal(std::string_view name, const ObjectiveOptions& options) {
  try {
    make_objective(name, options);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(name), std::string::npos);
    return error.code();
  }
  ADD_FAILURE() << "objective " << name << " was accepted";
  return ErrorCode::kPeer;
}

TEST(ObjectiveTest, FactoryNamesWhatItRefuses) {
  EXPECT_NE(make_objective("sft", {.dft = true}), nullptr);
  EXPECT_NE(make_objective("pretrain", {}), nullptr);
  EXPECT_EQ(refusal("pretrain", {.dft = true}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("grpo", {}), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal("sfft", {}), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace temper::objective
