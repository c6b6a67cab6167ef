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

double part_cost(const SiteCosts& costs, const std::vector<SiteRange>& parts, size_t p) {
  double cost = (p == 0 ? costs.first : 0) + (p + 1 == parts.size() ? costs.last : 0);
  for (int64_t s = parts[p].begin; s < parts[p].end; ++s) cost += costs.site_S[s];
  cost *= 3;
  for (int64_t s = parts[p].begin; costs.rebuilds && s / 2 < parts[p].end_layer() - 1; ++s) cost += costs.site_S[s];
  return cost;
}

// The costliest part, then the sum of squares: what a cut is judged by.
std::pair<double, double> judge(const SiteCosts& costs, const std::vector<SiteRange>& parts) {
  double most = 0, squares = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const double cost = part_cost(costs, parts, p);
    most = std::max(most, cost);
    squares += cost * cost;
  }
  return {most, squares};
}

// The best of all cuts, tried one by one.
std::pair<double, double> best_of_all(const SiteCosts& costs, int64_t num_parts, std::vector<SiteRange> parts = {}) {
  const auto S = static_cast<int64_t>(costs.site_S.size());
  const int64_t begin = parts.empty() ? 0 : parts.back().end;
  const int64_t parts_left = num_parts - static_cast<int64_t>(parts.size());
  if (parts_left == 0) return judge(costs, parts);
  std::pair<double, double> best = {1e300, 1e300};
  for (int64_t end = parts_left == 1 ? S : begin + 1; end <= S - (parts_left - 1); ++end) {
    parts.push_back({begin, end});
    best = std::min(best, best_of_all(costs, num_parts, parts));
    parts.pop_back();
  }
  return best;
}

TEST(StagesTest, NoCutIsBetter) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    SiteCosts costs;
    const int64_t num_sites = 2 * (1 + random() % 5);
    for (int64_t s = 0; s < num_sites; ++s) costs.site_S.push_back(1 + random() % 9);
    costs.first = random() % 3, costs.last = random() % 15, costs.rebuilds = random() % 2 == 0;
    const int64_t num_parts = 1 + random() % std::min<int64_t>(num_sites, 5);
    const std::vector<SiteRange> parts = split_sites(costs, num_parts, 1);
    ASSERT_EQ(static_cast<int64_t>(parts.size()), num_parts);
    for (size_t p = 0; p < parts.size(); ++p) {
      EXPECT_EQ(parts[p].begin, p == 0 ? 0 : parts[p - 1].end);
      EXPECT_LT(parts[p].begin, parts[p].end);
    }
    EXPECT_EQ(parts.back().end, num_sites);
    EXPECT_EQ(judge(costs, parts), best_of_all(costs, num_parts));
  }
}

TEST(StagesTest, EarlierPartsAreShorterWhereThatCostsNothing) {
  const SiteCosts equal{std::vector<double>(20, 0.1)};
  EXPECT_EQ(split_sites(equal, 3, 1), (std::vector<SiteRange>{{0, 6}, {6, 13}, {13, 20}}));
  EXPECT_EQ(split_sites(equal, 2, 2), split_sites(equal, 4, 1));
}

TEST(StagesTest, LayersAreCutWhereThatIsMoreEvenOnly) {
  const SiteCosts cheap_attention{{1, 3, 1, 3, 1, 3}};
  EXPECT_EQ(split_sites(cheap_attention, 3, 1), (std::vector<SiteRange>{{0, 2}, {2, 4}, {4, 6}}));
  EXPECT_EQ(split_sites(cheap_attention, 2, 1), (std::vector<SiteRange>{{0, 3}, {3, 6}}));  // 5 and 7, not 8 and 4
  const SiteCosts equal{std::vector<double>(6, 1)};
  EXPECT_EQ(split_sites(equal, 2, 1), (std::vector<SiteRange>{{0, 3}, {3, 6}}));
  // Two parts of one site: side by side they are one layer, so that no other is cut.
  EXPECT_EQ(split_sites(equal, 4, 1), (std::vector<SiteRange>{{0, 1}, {1, 2}, {2, 4}, {4, 6}}));
}

// A layer's attention at the end of a part saves less of rebuilding than a whole layer.
TEST(StagesTest, LayersAreCutLessWhereTheyAreRebuilt) {
  SiteCosts costs = forward_flops(v4_pro(), 4096, true);
  const auto num_cut = [&] {
    const auto parts = split_sites(costs, 16, 1);
    return std::count_if(parts.begin(), parts.end(), [](const SiteRange& part) { return part.end % 2 == 1; });
  };
  EXPECT_EQ(num_cut(), 15);
  costs.rebuilds = true;
  EXPECT_EQ(num_cut(), 0);
}

TEST(StagesTest, HeadAndPredictionBlockTakeTheLayersOfTheLastPart) {
  const SiteCosts costs = forward_flops(v4_pro(), 4096, true);
  const std::vector<SiteRange> parts = split_sites(costs, 16, 1);
  EXPECT_EQ(parts.back(), (SiteRange{121, 122}));
  for (size_t p = 0; p + 1 < parts.size(); ++p) EXPECT_NEAR(parts[p].end - parts[p].begin, 8, 1);
}

TEST(StagesTest, MorePartsThanSitesAreRefused) {
  const SiteCosts of_three_layers{std::vector<double>(6, 1)};
  try {
    split_sites(of_three_layers, 2, 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_STREQ(error.what(),
                 "2 stages of 4 chunks were asked for, but the model has 3 layers, and every chunk needs the attention "
                 "or the experts of one; take at most 3 chunks");
  }
  EXPECT_THROW(split_sites(of_three_layers, 7, 1), Error);
}

TEST(StagesTest, SitesAreSaidAsLayers) {
  EXPECT_EQ(describe(SiteRange{0, 8}), "layers 0 to 3");
  EXPECT_EQ(describe(SiteRange{2, 4}), "layer 1");
  EXPECT_EQ(describe(SiteRange{0, 9}), "layers 0 to 3, the attention of layer 4");
  EXPECT_EQ(describe(SiteRange{3, 7}), "the experts of layer 1, layer 2, the attention of layer 3");
  EXPECT_EQ(describe(SiteRange{3, 5}), "the experts of layer 1, the attention of layer 2");
  EXPECT_EQ(describe(SiteRange{6, 7}), "the attention of layer 3");
  EXPECT_EQ(describe(SiteRange{7, 8}), "the experts of layer 3");
}

double total(const SiteCosts& costs) {
  double sum = costs.first + costs.last;
  for (const double cost : costs.site_S) sum += cost;
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
