// Experts spread over ranks against one rank that runs the same micro-batches: losses, every gradient, statistics.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/error.h"
#include "base/philox.h"
#include "comm/world.h"
#include "rig.h"

namespace temper::model {
namespace {

constexpr int64_t kExperts = 8, kChosen = 2, kVocabulary = 23, kMaxTokens = 40;
const ExtraLosses kExtra{.mtp = 0.3, .balance = 0.01};

// Every kind of layer, routed by score and by token id, and the prediction block.
Config config() {
  return parse_config(R"({
    "model_type": "deepseek_v4", "vocab_size": 23, "hidden_size": 32, "num_hidden_layers": 4, "num_nextn_predict_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "qk_rope_head_dim": 8, "q_lora_rank": 16,
    "o_groups": 2, "o_lora_rank": 8, "sliding_window": 4, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 2,
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "scoring_func": "sqrtsoftplus", "routed_scaling_factor": 1.7, "swiglu_limit": 0.5,
    "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "rms_norm_eps": 1e-6, "max_position_embeddings": 1024,
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention",
                    "compressed_sparse_attention"],
    "mlp_layer_types": ["hash_moe", "moe", "hash_moe", "moe"],
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    "rope_theta": 10000, "compress_rope_theta": 160000})",
                      "expert parallel test");
}

struct Case {
  layers::Precision precision = layers::Precision::kFp32;
  Recompute recompute = Recompute::kNone;
  bool exact = false;
  int64_t expert_rows = 0;
  bool all_to_two_experts = false;   // which one rank has; the others' get nothing
  std::vector<int64_t> tokens = {};  // of the micro-batch of each rank
  int64_t max_tokens = kMaxTokens;
};

ModelOptions options_of(const Case& c, int64_t rank, int64_t num_ranks) {
  ModelOptions options;
  options.precision = c.precision, options.recompute = c.recompute, options.mtp = true;
  options.max_tokens = c.max_tokens, options.logit_chunk = 16;
  options.part.ep_rank = rank, options.part.ep_size = num_ranks, options.part.expert_rows = c.expert_rows;
  options.part.exact_micro_batches = c.exact ? 1 : 0;
  return options;
}

// Two documents, where there is enough for two.
layers::MicroBatch batch_of(int64_t seed, int64_t num_tokens) {
  const Philox random{static_cast<uint64_t>(seed), RandomPurpose::kTest};
  std::vector<std::vector<int32_t>> documents;
  for (const int64_t length : {num_tokens / 3, num_tokens - num_tokens / 3}) {
    if (length == 0) continue;
    auto& document = documents.emplace_back();
    for (int64_t t = 0; t < length; ++t) document.push_back(static_cast<int32_t>(random.below(length, t, kVocabulary)));
  }
  return next_token_batch(documents);
}

// Values of ordinary size, by name and place in the whole tensor.
void fill_parameters(Rig& rig, bool all_to_two_experts) {
  for (layers::Parameter* p : rig.model().parameters()) {
    const Philox random{std::hash<std::string>{}(p->name), RandomPurpose::kTest};
    const bool is_norm = p->init == layers::Init::kOnes, is_bias = p->name.ends_with("correction_bias");
    const double scale = p->decay ? 1.8 / std::sqrt(p->shape[p->shape.rank() - 1]) : is_norm ? 0.2 : 0.4;
    std::vector<double> values(p->shape.size());
    for (int64_t i = 0; i < p->shape.size(); ++i) {
      const int64_t at = p->whole_index(i);
      values[i] = (is_norm ? 1 : 0) + scale * (2 * random.uniform(0, at) - 1);
      if (is_bias && all_to_two_experts) values[i] = at < kChosen ? 100 : 0;
      if (p->init != layers::Init::kHashTable) continue;
      const int64_t token = at / kChosen, slot = at % kChosen;
      values[i] = static_cast<double>(all_to_two_experts ? slot : (token + slot * (1 + token % 3)) % kExperts);
    }
    rig.set(*p, values);
  }
  rig.refresh();
}

struct Gradient {
  std::string name;
  bool is_part = false;
  int64_t begin = 0;  // element of the whole
  std::vector<double> values;
};

struct Result {
  double loss = 0;
  std::vector<Gradient> gradients;
  std::vector<MoeStatistics> statistics;
  std::vector<double> balance_L;
  int64_t num_calls = 0;
};

Result run(const Case& c, const layers::MicroBatch& batch, comm::Comm* ep) {
  const bool is_fp64 = c.precision == layers::Precision::kFp64;
  Rig rig(config(), options_of(c, comm::group_rank(ep), comm::group_size(ep)),
          is_fp64 ? backend::cpu_reference() : backend::cpu());
  rig.ctx().groups.ep = ep;
  fill_parameters(rig, c.all_to_two_experts);
  Result result;
  result.loss = rig.loss_and_gradients(batch, kExtra);
  for (const layers::Parameter* p : rig.model().parameters())
    if (p->grad.defined())
      result.gradients.push_back({p->name, p->part.whole.rank() > 0, p->whole_index(0), rig.read(p->grad)});
  result.statistics = rig.model().moe_statistics(rig.ctx());
  result.balance_L = rig.model().auxiliary_losses(rig.ctx()).balance_L;
  if (ep) result.num_calls = ep->traffic().num_calls;
  return result;
}

// ((x0 + x1) + (x2 + x3)) + ..., in the precision of gradients.
std::vector<double> tree_sum(std::vector<std::vector<double>> terms, bool is_fp64) {
  for (size_t step = 1; step < terms.size(); step *= 2)
    for (size_t i = 0; i + step < terms.size(); i += 2 * step)
      for (size_t k = 0; k < terms[i].size(); ++k) {
        const double sum = terms[i][k] + terms[i + step][k];
        terms[i][k] = is_fp64 ? sum : static_cast<double>(static_cast<float>(sum));
      }
  return terms[0];
}

double relative_difference(const std::vector<double>& got, const std::vector<double>& want) {
  std::vector<double> difference(got.size());
  for (size_t i = 0; i < got.size(); ++i) difference[i] = got[i] - want[i];
  return norm(difference) / std::max(norm(want), 1e-30);
}

void expect_equal_gradients(const Case& c, const std::vector<Result>& got, const std::vector<Result>& want) {
  const bool is_fp64 = c.precision == layers::Precision::kFp64;
  const double tolerance = is_fp64 ? 1e-13 : 1e-6;
  for (size_t p = 0; p < want[0].gradients.size(); ++p) {
    const std::string& name = want[0].gradients[p].name;
    std::vector<std::vector<double>> wanted, dense;
    for (const Result& result : want) wanted.push_back(result.gradients[p].values);
    for (const Result& result : got) dense.push_back(result.gradients[p].values);
    const std::vector<double> whole = tree_sum(wanted, is_fp64);
    EXPECT_EQ(got[0].gradients[p].is_part, name.find(".experts.") != std::string::npos) << name;
    if (!got[0].gradients[p].is_part) {
      const std::vector<double> sum = tree_sum(dense, is_fp64);
      if (c.exact)
        EXPECT_EQ(sum, whole) << name;
      else
        EXPECT_LE(relative_difference(sum, whole), tolerance) << name;
      continue;
    }
    for (const Result& result : got) {
      const Gradient& part = result.gradients[p];
      const auto begin = whole.begin() + part.begin;
      const std::vector<double> slice(begin, begin + static_cast<int64_t>(part.values.size()));
      if (c.exact)
        EXPECT_EQ(part.values, slice) << name << " from element " << part.begin;
      else
        EXPECT_LE(relative_difference(part.values, slice), tolerance) << name << " from element " << part.begin;
    }
  }
}

void expect_equal_statistics(const std::vector<Result>& got, const std::vector<Result>& want) {
  for (size_t l = 0; l < want[0].statistics.size(); ++l) {
    int64_t cut = 0, want_cut = 0;
    for (size_t r = 0; r < want.size(); ++r) {
      EXPECT_EQ(got[r].statistics[l].load_E, want[r].statistics[l].load_E) << l;
      EXPECT_NEAR(got[r].statistics[l].entropy, want[r].statistics[l].entropy, 1e-6) << l;
      EXPECT_NEAR(got[r].balance_L[l], want[r].balance_L[l], 1e-6) << l;
      cut += got[r].statistics[l].num_gate_high + got[r].statistics[l].num_linear_high;
      want_cut += want[r].statistics[l].num_gate_high + want[r].statistics[l].num_linear_high;
    }
    EXPECT_EQ(cut, want_cut) << l;
    EXPECT_GT(cut, 0) << l;
  }
}

// Returns what the ranks did.
std::vector<Result> expect_equal(const Case& c) {
  const auto num_ranks = static_cast<int64_t>(c.tokens.size());
  std::vector<Result> got(num_ranks), want(num_ranks);
  for (int64_t r = 0; r < num_ranks; ++r) {
    Case alone = c;
    alone.expert_rows = 0;
    want[r] = run(alone, batch_of(r, c.tokens[r]), nullptr);
  }
  comm::run_ranks(num_ranks, [&](comm::Comm& world) {
    got[world.rank()] = run(c, batch_of(world.rank(), c.tokens[world.rank()]), &world);
  });
  for (int64_t r = 0; r < num_ranks; ++r) {
    if (c.exact)
      EXPECT_EQ(got[r].loss, want[r].loss) << r;
    else
      EXPECT_NEAR(got[r].loss, want[r].loss, 1e-6 * want[r].loss) << r;
  }
  expect_equal_gradients(c, got, want);
  expect_equal_statistics(got, want);
  return got;
}

using layers::Precision;

TEST(ExpertParallel, EqualsOneRank) {
  for (const auto precision : {Precision::kFp64, Precision::kFp32, Precision::kBf16})
    expect_equal({.precision = precision, .tokens = {40, 31}});
  expect_equal({.tokens = {17, 40, 23, 9}});
  expect_equal({.tokens = {17, 40, 23, 9, 5, 8, 12, 3}});
}

TEST(ExpertParallel, GivesEqualBitsInExactMode) {
  for (const auto precision : {Precision::kFp32, Precision::kBf16}) {
    expect_equal({.precision = precision, .exact = true, .tokens = {40, 31}});
    expect_equal({.precision = precision, .exact = true, .tokens = {17, 40, 0, 9}});
    expect_equal({.precision = precision, .exact = true, .tokens = {17, 40, 23, 9, 5, 0, 12, 3}});
  }
}

TEST(ExpertParallel, GivesEqualBitsWhereAProductIsCutByItsDepth) {
  // 383 rows of an expert are 384 with padding on one rank, a depth that the kernels cut otherwise.
  expect_equal({.exact = true, .all_to_two_experts = true, .tokens = {383, 30}, .max_tokens = 384});
}

TEST(ExpertParallel, RanksWithoutTokensTakePart) {
  expect_equal({.tokens = {0, 31}});
  expect_equal({.tokens = {17, 0, 1, 0}});
}

TEST(ExpertParallel, ExpertsWithoutRowsTakePart) {
  for (const bool exact : {false, true})
    expect_equal({.exact = exact, .all_to_two_experts = true, .tokens = {17, 40, 23, 9}});
}

TEST(ExpertParallel, TakesFurtherRoundsAboveTheBudget) {
  // As few as are allowed: the rows of one rank's tokens.
  const int64_t least = (kMaxTokens * kChosen + kExperts * 15 + 15) / 16 * 16;
  for (const bool exact : {false, true}) {
    for (const auto recompute : {Recompute::kNone, Recompute::kFull}) {
      Case c{.recompute = recompute, .exact = exact, .all_to_two_experts = true, .tokens = {40, 40, 37, 40}};
      const auto one_round = expect_equal(c);
      c.expert_rows = least;
      const auto rounds = expect_equal(c);
      EXPECT_GT(rounds[3].num_calls, one_round[3].num_calls);
    }
  }
}

TEST(ExpertParallel, RebuiltPassesTakeTheSameWay) {
  for (const auto recompute : {Recompute::kBlock, Recompute::kFull})
    expect_equal({.recompute = recompute, .exact = true, .tokens = {17, 40, 0, 9}});
}

TEST(ExpertParallel, PartsStartAsSlicesOfTheWhole) {
  Rig whole(config(), options_of({}, 0, 1), backend::cpu());
  whole.model().initialize(whole.ctx(), 5);
  for (int64_t rank = 0; rank < 4; ++rank) {
    Rig part(config(), options_of({}, rank, 4), backend::cpu());
    part.model().initialize(part.ctx(), 5);
    for (const layers::Parameter* p : part.model().parameters()) {
      const auto all = whole.read(whole.parameter(p->name).value), mine = part.read(p->value);
      const auto begin = all.begin() + p->whole_index(0);
      EXPECT_EQ(mine, std::vector<double>(begin, begin + static_cast<int64_t>(mine.size()))) << p->name;
      EXPECT_EQ(mine.size() < all.size(), p->name.find(".experts.") != std::string::npos) << p->name;
    }
  }
}

TEST(ExpertParallel, RefusesPartsThatDoNotFit) {
  ModelOptions options = options_of({}, 0, 3);
  EXPECT_THROW(Model(config(), options), Error);
  options = options_of({.expert_rows = kMaxTokens}, 0, 2);
  EXPECT_THROW(Model(config(), options), Error);
}

}  // namespace
}  // namespace temper::model
