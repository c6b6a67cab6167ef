// Choices recorded and given again, the bias that balances experts, frozen parameters, warm-up of the
// indexer: on the golden model in float64.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/world.h"
#include "golden.h"
#include "model/freeze.h"
#include "model/model_impl.h"

namespace temper::model {
namespace {

std::unique_ptr<Rig> exact_rig(ModelOptions options = {}) {
  return golden::make_rig(layers::Precision::kFp64, backend::cpu_reference(), std::move(options));
}

layers::MicroBatch golden_batch() { return next_token_batch({golden::tokens()}); }

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Choices, GivenAgainTheyChangeNoBit) {
  ModelOptions options;
  options.mtp = true;
  const auto rig = exact_rig(options);
  const ExtraLosses extra{.mtp = 0.3};
  const double loss = rig->loss(golden_batch(), nullptr, extra);
  const Choices chosen = rig->model().choices(rig->ctx());
  EXPECT_EQ(rig->loss(golden_batch(), &chosen, extra), loss);
  EXPECT_EQ(rig->model().choices(rig->ctx()).layers[4].expert_TK, chosen.layers[4].expert_TK);
}

// The choices of other weights, as anticipatory routing gives them: experts are theirs, weights are of today's router.
TEST(Choices, OfOlderWeightsReplaceExpertsButNotTheirWeights) {
  const auto older = exact_rig(), rig = exact_rig();
  auto& gate = older->parameter("model.layers.2.mlp.gate.weight");
  auto values = older->read(gate.value);
  std::rotate(values.begin(), values.begin() + 16, values.end());
  older->set(gate, values);
  older->refresh();
  older->loss(golden_batch());
  const Choices given = older->model().choices(older->ctx());
  rig->loss(golden_batch());
  ASSERT_NE(rig->model().choices(rig->ctx()).layers[2].expert_TK, given.layers[2].expert_TK);
  rig->loss(golden_batch(), &given);
  EXPECT_EQ(rig->model().choices(rig->ctx()).layers[2].expert_TK, given.layers[2].expert_TK);
  // w_k = 1.5 s_k / sum s, of the given experts and today's scores.
  const auto& moe = rig->model().impl().blocks[2]->saved().moe;
  const auto z = rig->read(moe.z_TE.first(29)), weight = rig->read(moe.weight_TK.first(29));
  for (int64_t t = 0; t < 29; ++t) {
    double sum = 0, score[3];
    for (int64_t k = 0; k < 3; ++k)
      sum += score[k] = std::sqrt(std::log1p(std::exp(z[t * 8 + given.layers[2].expert_TK[t * 3 + k]])));
    for (int64_t k = 0; k < 3; ++k) EXPECT_NEAR(weight[t * 3 + k], 1.5 * score[k] / sum, 1e-14);
  }
}

TEST(Choices, ARowOfMinusOneIsComputed) {
  const auto rig = exact_rig();
  rig->loss(golden_batch());
  const Choices computed = rig->model().choices(rig->ctx());
  Choices given;
  given.layers.resize(4);
  auto& experts = given.layers[1].expert_TK = std::vector<int32_t>(29 * 3, -1);
  for (int32_t k = 0; k < 3; ++k) experts[k] = k + 5;
  auto& selected = given.layers[1].selected_TA = std::vector<int32_t>(29 * 3, -1);
  selected[28 * 3] = 2;  // of token 28: entry 2 alone
  rig->loss(golden_batch(), &given);
  const Choices now = rig->model().choices(rig->ctx());
  EXPECT_THAT(std::vector<int32_t>(now.layers[1].expert_TK.begin(), now.layers[1].expert_TK.begin() + 3),
              testing::ElementsAre(5, 6, 7));
  EXPECT_THAT(std::vector<int32_t>(now.layers[1].selected_TA.end() - 3, now.layers[1].selected_TA.end()),
              testing::ElementsAre(2, -1, -1));
  EXPECT_TRUE(std::equal(now.layers[1].selected_TA.begin(), now.layers[1].selected_TA.end() - 3,
                         computed.layers[1].selected_TA.begin()));
}

TEST(Choices, ThatDoNotFitAreRefused) {
  const auto rig = exact_rig();
  Choices given;
  EXPECT_THAT(error_of([&] { rig->loss(golden_batch(), &given); }), testing::HasSubstr("0 layers; the model has 4"));
  given.layers.resize(4);
  given.layers[1].expert_TK = std::vector<int32_t>(29 * 3, 8);
  EXPECT_THAT(error_of([&] { rig->loss(golden_batch(), &given); }),
              testing::HasSubstr("layer 1, token 0: 8; expected 3 experts from 0 to 7"));
  given.layers[1].expert_TK = {1, 2};
  EXPECT_THAT(error_of([&] { rig->loss(golden_batch(), &given); }), testing::HasSubstr("2 values for 29 tokens"));
  given.layers[1].expert_TK.clear();
  given.layers[2].selected_TA = std::vector<int32_t>(29 * 3, -1);
  EXPECT_THAT(error_of([&] { rig->loss(golden_batch(), &given); }), testing::HasSubstr("has no indexer"));
  given.layers[2].selected_TA.clear();
  given.layers[3].selected_TA = std::vector<int32_t>(29 * 3, -1);
  given.layers[3].selected_TA[3 * 3] = 1;  // token 3 sees entry 0 only
  EXPECT_THAT(error_of([&] { rig->loss(golden_batch(), &given); }),
              testing::HasSubstr("layer 3, token 3: 1 after -1; expected ascending entries below 1"));
}

// Two documents on ranks that cut rows (cp) and heads (tp) among them; the weights are a function of the seed alone.
struct Parallel {
  std::unique_ptr<comm::Comm> cp, tp;
  std::unique_ptr<Rig> rig;

  Parallel(comm::Comm& world, int64_t cp_size, uint64_t seed) {
    ModelOptions options;
    options.precision = layers::Precision::kFp64, options.mtp = true, options.max_tokens = 29;
    const int64_t tp_size = world.size() / cp_size;
    cp = world.split(world.rank() % tp_size, world.rank(), "cp");
    tp = world.split(world.rank() / tp_size, world.rank(), "tp");
    options.part.cp_rank = cp->rank(), options.part.cp_size = cp->size();
    options.part.tp_rank = tp->rank(), options.part.tp_size = tp->size();
    rig = std::make_unique<Rig>(golden::config(), options, backend::cpu_reference());
    rig->ctx().groups.cp = cp.get(), rig->ctx().groups.tp = tp.get();
    rig->model().initialize(rig->ctx(), seed);
    rig->model().weights_updated(rig->ctx());
  }

  double loss(const Choices* given = nullptr) {
    const auto tokens = golden::tokens();
    return rig->loss(next_token_batch({{tokens.begin(), tokens.begin() + 20}, {tokens.begin() + 20, tokens.end()}}),
                     given, {.mtp = 0.3});
  }
  Choices choices() { return rig->model().choices(rig->ctx()); }
};

void expect_same(const Choices& got, const Choices& want) {
  ASSERT_EQ(got.layers.size(), want.layers.size());
  for (size_t l = 0; l < want.layers.size(); ++l) {
    EXPECT_EQ(got.layers[l].expert_TK, want.layers[l].expert_TK) << l;
    EXPECT_EQ(got.layers[l].selected_TA, want.layers[l].selected_TA) << l;
  }
}

TEST(Choices, AreOfAllRowsWhereDocumentsOrHeadsAreCut) {
  Choices chosen, older, both;
  double loss = 0, loss_of_older = 0, loss_of_both = 0;
  comm::run_ranks(1, [&](comm::Comm& world) {
    Parallel one(world, 1, 1), before(world, 1, 2);
    loss = one.loss(), chosen = one.choices();
    before.loss(), older = before.choices();
    // The first rows of the first document are computed, those of the second are given.
    both = older;
    for (Choices::Layer& layer : both.layers) {
      std::fill_n(layer.expert_TK.begin(), 8 * 3, -1);
      if (!layer.selected_TA.empty()) std::fill_n(layer.selected_TA.begin(), 8 * 3, -1);
    }
    loss_of_older = one.loss(&older);
    loss_of_both = one.loss(&both);
  });
  ASSERT_FALSE(chosen.layers[1].selected_TA.empty());
  ASSERT_NE(chosen.layers[1].selected_TA, older.layers[1].selected_TA);
  ASSERT_NE(chosen.layers[4].expert_TK, older.layers[4].expert_TK);
  EXPECT_GT(std::abs(loss - loss_of_older), 1e-6);
  EXPECT_GT(std::abs(loss_of_both - loss_of_older), 1e-6);
  for (const auto [num_ranks, cp_size] : {std::pair(2, 2), {3, 3}, {2, 1}, {4, 2}}) {
    SCOPED_TRACE(::testing::Message() << "cp " << cp_size << " of " << num_ranks);
    comm::run_ranks(num_ranks, [&, cp_size](comm::Comm& world) {
      Parallel many(world, cp_size, 1);
      EXPECT_NEAR(many.loss(), loss, 1e-11);
      expect_same(many.choices(), chosen);
      EXPECT_NEAR(many.loss(&older), loss_of_older, 1e-11);
      expect_same(many.choices(), older);
      EXPECT_NEAR(many.loss(&both), loss_of_both, 1e-11);
    });
  }
}

TEST(ExpertLoads, MoveTheBiasTowardsTheMean) {
  const auto rig = exact_rig();
  rig->model().zero_gradients(rig->ctx());
  rig->loss(golden_batch());
  const std::vector<int32_t> load_E = rig->model().moe_statistics(rig->ctx())[2].load_E;
  const auto& bias = rig->parameter("model.layers.2.mlp.gate.e_score_correction_bias").value;
  const auto before = rig->read(bias);
  rig->model().update_router_biases(rig->ctx(), 0.125);
  const auto after = rig->read(bias);
  const double mean = 29 * 3 / 8.0;
  int moved = 0;
  for (size_t e = 0; e < 8; ++e) {
    const double expected = load_E[e] < mean ? 0.125 : load_E[e] > mean ? -0.125 : 0;
    EXPECT_NEAR(after[e] - before[e], expected, 1e-15) << e;
    moved += expected != 0;
  }
  EXPECT_GT(moved, 0);
}

TEST(Frozen, PatternsNameParameters) {
  EXPECT_TRUE(matches_pattern("model.layers.3.mlp.gate.weight", "*.mlp.gate.*"));
  EXPECT_TRUE(matches_pattern("model.layers.3.mlp.gate.weight", "model.layers.3.*"));
  EXPECT_FALSE(matches_pattern("model.layers.31.mlp.gate.weight", "model.layers.3.*"));
  EXPECT_FALSE(matches_pattern("lm_head.weight", "head"));
  ModelOptions options;
  options.frozen = {"*.gate_weight"};
  EXPECT_THAT(error_of([&] { exact_rig(options); }), testing::HasSubstr("\"*.gate_weight\" names no parameter"));
}

// Whatever is frozen, the gradients of the others are those of the whole model, bit for bit.
TEST(Frozen, LeavesTheOtherGradientsAsTheyAre) {
  ModelOptions all;
  all.mtp = true;
  const auto whole = exact_rig(all);
  const ExtraLosses extra{.mtp = 0.3, .balance = 0.1};
  whole->loss_and_gradients(golden_batch(), extra);
  for (const std::vector<std::string>& frozen :
       {std::vector<std::string>{"model.embed_tokens.weight", "model.layers.0.*", "model.layers.1.*"},
        {"*.experts.*", "*norm.weight", "*_hc.*"},
        {"*.compressor.*", "*.sinks", "*.o_a_proj.weight", "lm_head.weight"},
        {"model.*", "lm_head.weight"}}) {
    ModelOptions options = all;
    options.frozen = frozen;
    const auto rig = exact_rig(options);
    rig->loss_and_gradients(golden_batch(), extra);
    int64_t compared = 0;
    for (const layers::Parameter* p : rig->model().parameters()) {
      if (!p->trainable) continue;
      EXPECT_EQ(rig->read(p->grad), whole->read(whole->parameter(p->name).grad)) << p->name << ", frozen " << frozen[0];
      ++compared;
    }
    EXPECT_GT(compared, 10) << frozen[0];
  }
}

TEST(IndexerWarmUp, TrainsTheIndexerAloneWithDenseAttention) {
  ModelOptions options;
  options.indexer = IndexerUse::kWarmUp;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
    options.recompute = recompute;
    const auto rig = exact_rig(options);
    rig->loss_and_gradients(golden_batch(), {.indexer = 1});
    for (const layers::Parameter* p : rig->model().parameters()) {
      const bool indexer = p->name.find(".indexer.") != std::string::npos;
      EXPECT_EQ(p->grad.defined(), indexer) << p->name;
      if (indexer) {
        EXPECT_GT(norm(rig->read(p->grad)), 1e-3) << p->name;
      }
    }
    EXPECT_TRUE(rig->model().choices(rig->ctx()).layers[1].selected_TA.empty());
    // Dense attention: the loss is that of a model whose index_topk covers every entry.
    Config dense = golden::config();
    dense.index_topk = 7;
    ModelOptions dense_options;
    dense_options.precision = layers::Precision::kFp64;
    dense_options.max_tokens = 29;
    Rig wide(dense, dense_options, backend::cpu_reference());
    for (layers::Parameter* p : wide.model().parameters()) wide.set(*p, golden::parameters().at(p->name).values);
    wide.refresh();
    EXPECT_EQ(rig->loss(golden_batch()), wide.loss(golden_batch()));
  }
}

TEST(Mtp, PackedDocumentsDoNotSeeEachOther) {
  ModelOptions options;
  options.mtp = true;
  const auto rig = exact_rig(options);
  const std::vector<int32_t> ids = golden::tokens();
  const std::vector<std::vector<int32_t>> documents = {
      {ids.begin(), ids.begin() + 9}, {ids[9]}, {ids[10], ids[11]}, {ids.begin() + 12, ids.end()}};
  const ExtraLosses extra{.mtp = 1};
  double apart = 0;
  for (const auto& document : documents) apart += rig->loss(next_token_batch({document}), nullptr, extra);
  EXPECT_NEAR(rig->loss(next_token_batch(documents), nullptr, extra), apart, 1e-11);
  // A document of one token has no row, one of two a row without a target.
  const auto& batch = rig->model().mtp_batch();
  EXPECT_THAT(batch.cu_seqlens, testing::ElementsAre(0, 8, 9, 25));
  EXPECT_EQ(batch.targets[8], -1);
  EXPECT_EQ(batch.targets[7], -1);
  EXPECT_EQ(batch.tokens[9], ids[13]);
  EXPECT_EQ(batch.targets[9], ids[14]);
}

TEST(Mtp, IsRefusedWhereTheModelHasNone) {
  Config config = golden::config();
  config.num_nextn_predict_layers = 0;
  ModelOptions options;
  options.mtp = true, options.max_tokens = 4;
  EXPECT_THAT(error_of([&] { Model(config, options); }), testing::HasSubstr("num_nextn_predict_layers = 0"));
}

}  // namespace
}  // namespace temper::model
