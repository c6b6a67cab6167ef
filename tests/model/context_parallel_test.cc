// A model whose documents are cut over ranks against one rank: losses, log-probabilities, every gradient, statistics.
#include <gtest/gtest.h>

#include <map>

#include "base/philox.h"
#include "comm/world.h"
#include "rig.h"

namespace temper::model {
namespace {

constexpr int64_t kVocabulary = 23;
const ExtraLosses kExtra{.mtp = 0.3, .balance = 0.5, .indexer = 0.2};

// Every kind of layer, and the prediction block.
Config config() {
  return parse_config(R"({
    "model_type": "deepseek_v4", "vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 3, "num_nextn_predict_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "qk_rope_head_dim": 8, "q_lora_rank": 8,
    "o_groups": 2, "o_lora_rank": 8, "sliding_window": 5, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 2,
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "scoring_func": "sqrtsoftplus", "routed_scaling_factor": 1.7, "swiglu_limit": 0.5,
    "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "rms_norm_eps": 1e-6, "max_position_embeddings": 1024,
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
    "mlp_layer_types": ["hash_moe", "moe", "moe"],
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    "rope_theta": 10000, "compress_rope_theta": 160000})",
                      "context parallel test");
}

layers::MicroBatch batch_of(const std::vector<int64_t>& lengths) {
  const Philox random{7, RandomPurpose::kTest};
  std::vector<std::vector<int32_t>> documents;
  for (const int64_t length : lengths) {
    auto& document = documents.emplace_back();
    for (int64_t t = 0; t < length; ++t)
      document.push_back(static_cast<int32_t>(random.below(documents.size(), t, kVocabulary)));
  }
  return next_token_batch(documents);
}

struct Result {
  double loss = 0;
  std::vector<double> logp_T;
  std::vector<int32_t> best_T;
  std::map<std::string, std::vector<double>> gradients;
  AuxiliaryLosses auxiliary;
  std::vector<MoeStatistics> statistics;
};

Result run(layers::Precision precision, Recompute recompute, const layers::MicroBatch& batch, comm::Comm* cp) {
  ModelOptions options;
  options.precision = precision, options.recompute = recompute, options.mtp = true;
  options.indexer = IndexerUse::kTrain, options.logit_chunk = 8;
  options.max_tokens = std::max<int64_t>(1, std::ssize(batch.tokens));
  options.part.cp_rank = comm::group_rank(cp), options.part.cp_size = comm::group_size(cp);
  Rig rig(config(), options, precision == layers::Precision::kFp64 ? backend::cpu_reference() : backend::cpu());
  rig.ctx().groups.cp = cp, rig.ctx().groups.data = cp;
  for (layers::Parameter* p : rig.model().parameters()) {
    const Philox random{std::hash<std::string>{}(p->name), RandomPurpose::kTest};
    std::vector<double> values(p->shape.size());
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = p->init == layers::Init::kHashTable
                      ? static_cast<double>((i / 2 + i % 2) % 4)  // two experts, one behind the other
                      : (p->init == layers::Init::kOnes ? 1 : 0) + 0.6 * (2 * random.uniform(0, i) - 1);
    rig.set(*p, values);
  }
  rig.refresh();
  Result result;
  result.loss = rig.loss_and_gradients(batch, kExtra);
  rig.model().complete_gradients(rig.ctx());
  for (const layers::Parameter* p : rig.model().parameters())
    if (p->grad.defined()) result.gradients[p->name] = rig.read(p->grad);
  result.auxiliary = rig.model().auxiliary_losses(rig.ctx());
  result.statistics = rig.model().moe_statistics(rig.ctx());
  rig.model().forward(rig.ctx(), batch);
  TokenResults results = rig.model().logprobs(rig.ctx());
  result.logp_T = std::move(results.logp_T), result.best_T = std::move(results.best_T);
  return result;
}

double difference(const std::vector<double>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  std::vector<double> less(want.size());
  for (size_t i = 0; i < want.size(); ++i) less[i] = got[i] - want[i];
  return norm(less) / std::max(norm(want), 1e-300);
}

void expect_equal(layers::Precision precision, Recompute recompute, const std::vector<int64_t>& lengths,
                  int64_t num_ranks) {
  SCOPED_TRACE(::testing::Message() << num_ranks << " ranks, " << lengths.size() << " documents");
  const double tolerance = precision == layers::Precision::kFp64 ? 1e-12 : 1e-5;  // sums that cancel
  const layers::MicroBatch batch = batch_of(lengths);
  const Result one = run(precision, recompute, batch, nullptr);
  std::vector<Result> of_rank(num_ranks);
  comm::run_ranks(num_ranks,
                  [&](comm::Comm& world) { of_rank[world.rank()] = run(precision, recompute, batch, &world); });
  std::map<std::string, std::vector<double>> sums;
  for (const Result& result : of_rank) {
    EXPECT_NEAR(result.loss, one.loss, tolerance * std::abs(one.loss));  // of all rows, on every rank
    EXPECT_LE(difference(result.logp_T, one.logp_T), tolerance);
    EXPECT_EQ(result.best_T, one.best_T);
    EXPECT_LE(difference(result.auxiliary.balance_L, one.auxiliary.balance_L), tolerance);
    EXPECT_LE(difference(result.auxiliary.indexer_L, one.auxiliary.indexer_L), tolerance);
    for (size_t l = 0; l < one.statistics.size(); ++l) {
      EXPECT_EQ(result.statistics[l].load_E, one.statistics[l].load_E) << l;
      EXPECT_EQ(result.statistics[l].num_elements, one.statistics[l].num_elements) << l;
      EXPECT_NEAR(result.statistics[l].entropy, one.statistics[l].entropy, tolerance) << l;
    }
    for (const auto& [name, gradient] : result.gradients) {
      auto& sum = sums[name];
      sum.resize(gradient.size());
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += gradient[i];
    }
  }
  for (const auto& [name, gradient] : one.gradients) EXPECT_LE(difference(sums[name], gradient), tolerance) << name;
}

using layers::Precision;

TEST(ContextParallel, EqualsOneRank) {
  for (const int64_t num_ranks : {2, 3, 4}) expect_equal(Precision::kFp64, Recompute::kNone, {3, 29, 1, 11}, num_ranks);
  for (const int64_t num_ranks : {2, 8}) expect_equal(Precision::kFp32, Recompute::kNone, {40, 3}, num_ranks);
}

TEST(ContextParallel, RanksWithoutRowsTakePart) {
  expect_equal(Precision::kFp64, Recompute::kNone, {2}, 4);
  expect_equal(Precision::kFp64, Recompute::kNone, {1, 1, 1}, 2);  // the prediction block has no rows
  expect_equal(Precision::kFp64, Recompute::kNone, {1, 5}, 3);     // or the first rank none of them
}

TEST(ContextParallel, RebuiltPassesExchangeTheSame) {
  for (const auto recompute : {Recompute::kBlock, Recompute::kFull})
    expect_equal(Precision::kFp64, recompute, {3, 29, 1, 11}, 3);
}

TEST(ContextParallel, IsCloseInBf16) {
  const layers::MicroBatch batch = batch_of({40, 3});
  const Result one = run(Precision::kBf16, Recompute::kNone, batch, nullptr);
  comm::run_ranks(3, [&](comm::Comm& world) {
    const Result many = run(Precision::kBf16, Recompute::kNone, batch, &world);
    EXPECT_NEAR(many.loss, one.loss, 1e-2 * one.loss);
  });
}

}  // namespace
}  // namespace temper::model
