#include "parallel/stages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/error.h"
#include "layers/token_layout.h"
#include "model/model.h"
#include "parallel/released_shapes.h"

namespace temper::parallel {
namespace {

double part_cost(const LayerCosts& costs, const std::vector<LayerRange>& parts, size_t p) {
  double cost = (p == 0 ? costs.first : 0) + (p + 1 == parts.size() ? costs.last : 0);
  for (int64_t l = parts[p].begin; l < parts[p].end; ++l) cost += costs.layer_L[l];
  return cost;
}

// The costliest part, then the sum of squares: what a cut is judged by.
std::pair<double, double> judge(const LayerCosts& costs, const std::vector<LayerRange>& parts) {
  double most = 0, squares = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const double cost = part_cost(costs, parts, p);
    most = std::max(most, cost);
    squares += cost * cost;
  }
  return {most, squares};
}

// The best of all cuts, tried one by one.
std::pair<double, double> best_of_all(const LayerCosts& costs, int64_t num_parts, std::vector<LayerRange> parts = {}) {
  const auto L = static_cast<int64_t>(costs.layer_L.size());
  const int64_t begin = parts.empty() ? 0 : parts.back().end;
  const int64_t parts_left = num_parts - static_cast<int64_t>(parts.size());
  if (parts_left == 0) return judge(costs, parts);
  std::pair<double, double> best = {1e300, 1e300};
  for (int64_t end = parts_left == 1 ? L : begin + 1; end <= L - (parts_left - 1); ++end) {
    parts.push_back({begin, end});
    best = std::min(best, best_of_all(costs, num_parts, parts));
    parts.pop_back();
  }
  return best;
}

TEST(StagesTest, NoCutIsBetter) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    LayerCosts costs;
    const int64_t num_layers = 1 + random() % 9;
    for (int64_t l = 0; l < num_layers; ++l) costs.layer_L.push_back(1 + random() % 9);
    costs.first = random() % 3, costs.last = random() % 15;
    const int64_t num_parts = 1 + random() % std::min<int64_t>(num_layers, 5);
    const std::vector<LayerRange> parts = split_layers(costs, num_parts, 1);
    ASSERT_EQ(static_cast<int64_t>(parts.size()), num_parts);
    for (size_t p = 0; p < parts.size(); ++p) {
      EXPECT_EQ(parts[p].begin, p == 0 ? 0 : parts[p - 1].end);
      EXPECT_LT(parts[p].begin, parts[p].end);
    }
    EXPECT_EQ(parts.back().end, num_layers);
    EXPECT_EQ(judge(costs, parts), best_of_all(costs, num_parts));
  }
}

TEST(StagesTest, EarlierPartsAreShorterWhereThatCostsNothing) {
  const LayerCosts equal{std::vector<double>(10, 0.1)};
  EXPECT_EQ(split_layers(equal, 4, 1), (std::vector<LayerRange>{{0, 2}, {2, 4}, {4, 7}, {7, 10}}));
  EXPECT_EQ(split_layers(equal, 2, 2), split_layers(equal, 4, 1));
}

TEST(StagesTest, HeadAndPredictionBlockTakeTheLayersOfTheLastPart) {
  const LayerCosts costs = forward_flops(v4_pro(), 4096, true);
  const std::vector<LayerRange> parts = split_layers(costs, 16, 1);
  EXPECT_EQ(parts.back(), (LayerRange{60, 61}));
  for (size_t p = 0; p + 1 < parts.size(); ++p) EXPECT_EQ(parts[p].end - parts[p].begin, 4);
}

TEST(StagesTest, MorePartsThanLayersAreRefused) {
  try {
    split_layers(LayerCosts{std::vector<double>(6, 1)}, 2, 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_STREQ(
        error.what(),
        "2 stages of 4 chunks were asked for, but the model has 6 layers, and every chunk needs one; take at most "
        "3 chunks");
  }
  EXPECT_THROW(split_layers(LayerCosts{std::vector<double>(6, 1)}, 7, 1), Error);
}

double total(const LayerCosts& costs) {
  double sum = costs.first + costs.last;
  for (const double cost : costs.layer_L) sum += cost;
  return sum;
}

// The table of post-training 4.9, which gives a tenth of a GFLOP.
TEST(StagesTest, FlopsAreThoseOfTheReleasedModels) {
  EXPECT_NEAR(total(forward_flops(v4_flash(), 4096, false)) / 1e9, 28.5, 0.06);
  EXPECT_NEAR(total(forward_flops(v4_flash(), 65536, false)) / 1e9, 32.1, 0.06);
  EXPECT_NEAR(total(forward_flops(v4_flash(), 1048576, false)) / 1e9, 84.5, 0.06);
  EXPECT_NEAR(total(forward_flops(v4_pro(), 16384, false)) / 1e9, 108.3, 0.06);
  EXPECT_NEAR(total(forward_flops(v4_pro(), 1048576, false)) / 1e9, 205.5, 0.06);
  // Page 4.6: the prediction block, of short context, with the head's second pass.
  const auto prediction = [](const model::Config& config) {
    return (forward_flops(config, 64, true).last - forward_flops(config, 64, false).last) / 1e9;
  };
  EXPECT_NEAR(prediction(v4_flash()), 1.80, 0.02);
  EXPECT_NEAR(prediction(v4_pro()), 3.90, 0.02);
}

// What a step reports is three times this where everything is trained and no indexer runs.
TEST(StagesTest, FlopsAreAThirdOfAStepsModelFlops) {
  model::Config config;
  config.vocab_size = 40, config.hidden_size = 16, config.num_hidden_layers = 3;
  config.num_attention_heads = 4, config.head_dim = 8, config.qk_rope_head_dim = 4, config.q_lora_rank = 12;
  config.o_groups = 2, config.o_lora_rank = 6, config.sliding_window = 8;
  config.index_n_heads = 2, config.index_head_dim = 8, config.index_topk = 64;
  config.n_routed_experts = 6, config.num_experts_per_tok = 2, config.moe_intermediate_size = 10;
  config.max_position_embeddings = 256, config.csa_rate = 4, config.hca_rate = 8;
  config.layer_types = {model::AttentionKind::kSliding, model::AttentionKind::kCsa, model::AttentionKind::kHca};
  config.is_hash_moe = {true, false, false};
  for (const int32_t S : {5, 50, 131}) {
    model::Model model(config, {.max_tokens = 256});
    const layers::HostLayout layout = layers::make_layout({0, S}, config.sliding_window, config.compress_rates());
    const double step = model.train_flops(layout, S);
    EXPECT_NEAR(total(forward_flops(config, S, false)) * 3 * S / step, 1, 1e-12) << S;
  }
}

}  // namespace
}  // namespace temper::parallel
