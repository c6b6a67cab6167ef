// A document of 65,536 tokens: memory that grows with the tokens and not with their square, and a training step whose
// first part is what the shorter document alone computes.
#include <gtest/gtest.h>

#include <cmath>

#include "base/philox.h"
#include "rig.h"

namespace temper::model {
namespace {

// The rates and the window of the released models, an indexer that has to choose, little else.
Config long_config() {
  return parse_config(R"({
    "model_type": "deepseek_v4", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "qk_rope_head_dim": 8, "q_lora_rank": 8, "o_groups": 1, "o_lora_rank": 16,
    "sliding_window": 128, "index_n_heads": 1, "index_head_dim": 8, "index_topk": 64, "compress_ratios": [0, 4, 128],
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "scoring_func": "sqrtsoftplus", "routed_scaling_factor": 1.5, "swiglu_limit": 10, "num_hash_layers": 1,
    "hc_mult": 2, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "rms_norm_eps": 1e-6, "max_position_embeddings": 1048576,
    "initializer_range": 0.2, "rope_theta": 10000, "compress_rope_theta": 160000,
    "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
                     "original_max_position_embeddings": 65536}})",
                      "long context test");
}

ModelOptions options_for(int64_t num_tokens) {
  ModelOptions options;
  options.max_tokens = num_tokens;
  options.indexer = IndexerUse::kTrain;
  options.num_threads = 2;
  return options;
}

int64_t planned_bytes(int64_t num_tokens) {
  Model model(long_config(), options_for(num_tokens));
  Book book;
  model.declare(book);
  return book.total_bytes();
}

TEST(LongContext, MemoryIsLinearInTokens) {
  const double base = planned_bytes(16384), twice = planned_bytes(32768), million = planned_bytes(1 << 20);
  const double per_token = (twice - base) / 16384;
  EXPECT_NEAR(million, base + per_token * ((1 << 20) - 16384), 0.01 * million);
  EXPECT_LT(per_token, 16384) << "a row of scores alone would be longer";
}

TEST(LongContext, ADocumentOf64KTokensTrains) {
  constexpr int64_t kLong = 65536, kShort = 4096;
  Rig rig(long_config(), options_for(kLong), backend::cpu());
  rig.model().initialize(rig.ctx(), 5);
  const Philox random{3, RandomPurpose::kTest};
  std::vector<int32_t> document(kLong);
  for (int64_t t = 0; t < kLong; ++t) document[t] = static_cast<int32_t>(random.below(0, t, 64));
  const std::vector<int32_t> prefix(document.begin(), document.begin() + kShort);

  rig.model().forward(rig.ctx(), next_token_batch({prefix}));
  const auto expected = rig.model().logprobs(rig.ctx()).logp_T;
  const double loss = rig.loss_and_gradients(next_token_batch({document}), {.balance = 0.01, .indexer = 1e-5});
  EXPECT_NEAR(loss / (kLong - 1), std::log(64.0), 1.0);
  for (const layers::Parameter* p : rig.model().parameters()) {
    if (!p->trainable) continue;
    const double size = norm(rig.read(p->grad));
    EXPECT_TRUE(std::isfinite(size) && size > 0) << p->name << ": " << size;
  }
  // Nothing behind a token changes what it predicts.
  const auto found = rig.model().logprobs(rig.ctx()).logp_T;
  double worst = 0;
  for (int64_t t = 0; t + 1 < kShort; ++t) worst = std::max(worst, std::abs(found[t] - expected[t]));
  EXPECT_LT(worst, 1e-4);
}

}  // namespace
}  // namespace temper::model
