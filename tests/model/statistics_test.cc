// What a step tells about its experts, against float64 arithmetic on the tensors that the forward pass left: on the
// golden model, whose clamp cuts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "golden.h"
#include "model/model_impl.h"

namespace temper::model {
namespace {

constexpr double kLimit = 1;
constexpr int64_t kTokens = 29, kWidth = 10, kChosen = 3;  // of the golden model

std::unique_ptr<Rig> make_rig(layers::Precision precision, Recompute recompute) {
  ModelOptions options;
  options.recompute = recompute, options.mtp = true;
  const bool exact = precision == layers::Precision::kFp64;
  auto rig = golden::make_rig(precision, exact ? backend::cpu_reference() : backend::cpu(), options);
  rig->model().zero_gradients(rig->ctx());
  return rig;
}

layers::MicroBatch golden_batch() { return next_token_batch({golden::tokens()}); }

// The same from what the last forward pass saved, which is there with Recompute::kNone.
MoeStatistics direct(Rig& rig, int64_t layer, int64_t rows) {
  Block& block = rig.model().impl().block(layer);
  const layers::Moe::Saved saved = block.moe().first(block.saved().moe, rows);
  MoeStatistics s;
  s.load_E.resize(block.moe().dims().E);
  for (const double e : rig.read(block.choices(rows).expert_TK)) ++s.load_E[static_cast<size_t>(e)];
  if (block.moe().bias_E().defined()) {
    const auto bias_E = rig.read(block.moe().bias_E());
    s.bias_range = *std::max_element(bias_E.begin(), bias_E.end()) - *std::min_element(bias_E.begin(), bias_E.end());
  }
  const auto z_TE = rig.read(saved.z_TE);
  const size_t E = s.load_E.size();
  for (size_t t = 0; t < static_cast<size_t>(rows); ++t) {
    double sum = 0;
    for (size_t e = 0; e < E; ++e) sum += std::sqrt(std::log1p(std::exp(z_TE[t * E + e])));
    for (size_t e = 0; e < E; ++e) {
      const double p = std::sqrt(std::log1p(std::exp(z_TE[t * E + e]))) / sum;
      s.entropy -= p * std::log(p) / static_cast<double>(rows);
    }
  }
  const auto count = [&](const std::vector<double>& gu_RG, const std::vector<double>& row_R) {
    const size_t F = kWidth;
    for (size_t r = 0; r < gu_RG.size() / (2 * F); ++r)
      for (size_t f = 0; f < F && (row_R.empty() || row_R[r] >= 0); ++f) {
        const double gate = gu_RG[r * 2 * F + f], linear = gu_RG[(r * 2 + 1) * F + f];
        s.num_gate_high += gate > kLimit, s.num_linear_high += linear > kLimit, s.num_linear_low += linear < -kLimit;
        ++s.num_elements;
      }
  };
  count(rig.read(saved.gu_RG), rig.read(saved.plan.row_token_P));
  count(rig.read(saved.shared_gu_TG), {});
  return s;
}

void expect_equal(const MoeStatistics& got, const MoeStatistics& want, bool score_routed, double tolerance) {
  if (score_routed) {
    EXPECT_EQ(got.load_E, want.load_E);
    EXPECT_NEAR(got.entropy, want.entropy, tolerance);
  } else {
    EXPECT_TRUE(got.load_E.empty());
    EXPECT_EQ(got.entropy, 0);
  }
  EXPECT_EQ(got.bias_range, want.bias_range);
  EXPECT_EQ(got.bias_range > 0, score_routed);
  EXPECT_EQ(got.num_gate_high, want.num_gate_high);
  EXPECT_EQ(got.num_linear_high, want.num_linear_high);
  EXPECT_EQ(got.num_linear_low, want.num_linear_low);
  EXPECT_EQ(got.num_elements, want.num_elements);
}

TEST(MoeStatistics, EqualADirectCount) {
  for (const auto precision : {layers::Precision::kFp64, layers::Precision::kFp32, layers::Precision::kBf16}) {
    const auto rig = make_rig(precision, Recompute::kNone);
    rig->loss_and_gradients(golden_batch(), {.mtp = 0.3});
    const auto statistics = rig->model().moe_statistics(rig->ctx());
    ASSERT_EQ(statistics.size(), 5u);
    for (int64_t l = 0; l < 5; ++l) {
      SCOPED_TRACE(l);
      const int64_t rows = l == 4 ? kTokens - 1 : kTokens;  // the prediction block has no row for the last token
      const MoeStatistics want = direct(*rig, l, rows);
      expect_equal(statistics[l], want, l > 0, precision == layers::Precision::kFp64 ? 1e-14 : 1e-6);
      EXPECT_EQ(want.num_elements, rows * (kChosen + 1) * kWidth);
      EXPECT_GT(std::min({want.num_gate_high, want.num_linear_high, want.num_linear_low}), 0);
      EXPECT_LT(want.num_gate_high, want.num_elements);
    }
  }
}

TEST(MoeStatistics, CountForwardPassesOnceWhateverIsRebuilt) {
  for (const auto precision : {layers::Precision::kFp32, layers::Precision::kBf16}) {
    const auto kept = make_rig(precision, Recompute::kNone);
    kept->loss_and_gradients(golden_batch(), {.mtp = 0.3});
    const auto want = kept->model().moe_statistics(kept->ctx());
    for (const Recompute recompute : {Recompute::kBlock, Recompute::kFull}) {
      const auto rig = make_rig(precision, recompute);
      rig->loss_and_gradients(golden_batch(), {.mtp = 0.3});
      const auto got = rig->model().moe_statistics(rig->ctx());
      for (size_t l = 0; l < 5; ++l) expect_equal(got[l], want[l], l > 0, 0);
    }
  }
}

TEST(MoeStatistics, AddUpOverMicroBatchesUntilTheNextStep) {
  const auto rig = make_rig(layers::Precision::kBf16, Recompute::kFull);
  rig->loss(golden_batch());
  const auto one = rig->model().moe_statistics(rig->ctx())[2];
  rig->loss(golden_batch());
  const auto two = rig->model().moe_statistics(rig->ctx())[2];
  for (size_t e = 0; e < two.load_E.size(); ++e) EXPECT_EQ(two.load_E[e], 2 * one.load_E[e]);
  EXPECT_EQ(std::accumulate(two.load_E.begin(), two.load_E.end(), 0), 2 * kTokens * kChosen);
  EXPECT_NEAR(two.entropy, one.entropy, 1e-6) << "a mean over tokens";
  EXPECT_EQ(two.num_gate_high, 2 * one.num_gate_high);
  EXPECT_EQ(two.num_elements, 2 * one.num_elements);
  rig->model().zero_gradients(rig->ctx());
  const auto none = rig->model().moe_statistics(rig->ctx())[2];
  EXPECT_EQ(none.num_elements, 0);
  EXPECT_EQ(none.num_gate_high, 0);
  EXPECT_EQ(none.entropy, 0);
}

}  // namespace
}  // namespace temper::model
