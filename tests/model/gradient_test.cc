// Every gradient of a whole tiny model against central differences of its loss, in float64 through the scalar
// reference.
//
//   dLoss along d  =  (8 (Loss(w + h d) - Loss(w - h d)) - (Loss(w + 2h d) - Loss(w - 2h d))) / 12h + O(h^4)
//   h = 1e-6: small, since thousands of values stand around the experts' clamp, and a step across it is no derivative
//
// The model has every layer kind, the prediction block, the balance loss and packed documents; experts and index
// entries are held fixed (given) while a weight moves, as the hand-written backward does.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/philox.h"
#include "golden.h"
#include "model/model_impl.h"
#include "rig.h"

namespace temper::model {
namespace {

constexpr double kStep = 1e-6, kTolerance = 1e-7;

Config tiny_config() {
  return parse_config(R"({
    "model_type": "deepseek_v4", "vocab_size": 23, "hidden_size": 10, "num_hidden_layers": 4, "num_nextn_predict_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 6, "qk_rope_head_dim": 4, "q_lora_rank": 5, "o_groups": 2, "o_lora_rank": 3,
    "sliding_window": 4, "index_n_heads": 2, "index_head_dim": 4, "index_topk": 2,
    "n_routed_experts": 5, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 7,
    "scoring_func": "sqrtsoftplus", "routed_scaling_factor": 1.7, "swiglu_limit": 1.5,
    "hc_mult": 3, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "rms_norm_eps": 1e-6, "max_position_embeddings": 1024,
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention",
                    "compressed_sparse_attention"],
    "mlp_layer_types": ["hash_moe", "moe", "hash_moe", "moe"],
    "compress_rates": {"compressed_sparse_attention": 3, "heavily_compressed_attention": 5},
    "rope_theta": 10000, "compress_rope_theta": 160000,
    "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
                     "original_max_position_embeddings": 64}})",
                      "gradient test");
}

// Every value away from its usual start; ordinary sizes, so that the clamp of the experts is active but seldom near.
std::vector<double> random_values(const layers::Parameter& p, const Config& config, uint64_t tensor) {
  const Philox random{2024, RandomPurpose::kTest};
  std::vector<double> values(p.shape.size());
  const bool is_norm = p.init == layers::Init::kOnes;
  const double scale = p.decay ? 1.8 / std::sqrt(p.shape[p.shape.rank() - 1]) : is_norm ? 0.2 : 0.4;
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = (is_norm ? 1 : 0) + scale * (2 * random.uniform(tensor, i) - 1);
  if (p.init == layers::Init::kHashTable)
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<double>((i / p.shape[1] + 2 * (i % p.shape[1])) % config.n_routed_experts);
  return values;
}

class Gradient : public testing::Test {
 protected:
  void SetUp() override {
    rig_ = make_rig(Recompute::kNone);
    batch_ = make_batch();
    rig_->loss_and_gradients(batch_, kExtra);
    choices_ = rig_->model().choices(rig_->ctx());
  }

  static std::unique_ptr<Rig> make_rig(Recompute recompute) {
    const Config config = tiny_config();
    ModelOptions options;
    options.precision = layers::Precision::kFp64;
    options.max_tokens = 36;
    options.logit_chunk = 7;
    options.recompute = recompute;
    options.mtp = true;
    auto rig = std::make_unique<Rig>(config, options, backend::cpu_reference());
    uint64_t tensor = 0;
    for (layers::Parameter* p : rig->model().parameters()) rig->set(*p, random_values(*p, config, ++tensor));
    rig->refresh();
    return rig;
  }

  // Three documents in one row, uneven weights, one masked token.
  static layers::MicroBatch make_batch() {
    std::vector<std::vector<int32_t>> documents;
    const Philox random{7, RandomPurpose::kTest};
    for (const int64_t length : {23, 3, 10}) {
      auto& document = documents.emplace_back();
      for (int64_t t = 0; t < length; ++t) document.push_back(static_cast<int32_t>(random.below(length, t, 23)));
    }
    layers::MicroBatch batch = next_token_batch(documents);
    for (size_t t = 0; t < batch.weights.size(); ++t)
      if (batch.targets[t] >= 0) batch.weights[t] = 0.25f * static_cast<float>(1 + t % 5);
    batch.targets[4] = -1, batch.weights[4] = 0;
    return batch;
  }

  // Central difference of the loss when p moves along direction; p is put back.
  double difference(layers::Parameter& p, const std::vector<double>& values, const std::vector<double>& direction) {
    const auto loss_at = [&](double distance) {
      std::vector<double> moved = values;
      for (size_t i = 0; i < moved.size(); ++i) moved[i] += distance * direction[i];
      rig_->set(p, moved);
      rig_->refresh();
      return loss();
    };
    const double near = loss_at(kStep) - loss_at(-kStep), far = loss_at(2 * kStep) - loss_at(-2 * kStep);
    rig_->set(p, values);
    rig_->refresh();
    return (8 * near - far) / (12 * kStep);
  }

  // Main and prediction loss with the choices held, and the balance losses.
  double loss() {
    double sum = rig_->loss(batch_, &choices_, kExtra);
    for (int64_t l = 0; l <= rig_->model().config().num_hidden_layers; ++l)
      sum += kExtra.balance * balance_sum(rig_->model().impl().block(l), l);
    return sum;
  }

  // sum_e F_e P_e of page 6.3 from the router's logits, written from its definition.
  double balance_sum(const Block& block, int64_t layer) {
    const auto& chosen = choices_.layers[layer].expert_TK;
    const bool is_mtp = layer == rig_->model().config().num_hidden_layers;
    if (!is_mtp && rig_->model().config().is_hash_moe[layer]) return 0;
    const int64_t K = 2, E = 5, T = static_cast<int64_t>(chosen.size()) / K;
    const auto z = rig_->read(block.saved().moe.z_TE.first(T));
    std::vector<double> count(E), share(E);
    for (const int32_t expert : chosen) count[expert] += 1;
    for (int64_t t = 0; t < T; ++t) {
      double total = 0;
      for (int64_t e = 0; e < E; ++e) total += std::sqrt(std::log1p(std::exp(z[t * E + e])));
      for (int64_t e = 0; e < E; ++e) share[e] += std::sqrt(std::log1p(std::exp(z[t * E + e]))) / total;
    }
    double sum = 0;
    for (int64_t e = 0; e < E; ++e) sum += static_cast<double>(E) / (K * T) * count[e] * share[e] / T;
    return sum;
  }

  static constexpr ExtraLosses kExtra{.mtp = 0.4, .balance = 3};
  std::unique_ptr<Rig> rig_;
  layers::MicroBatch batch_;
  Choices choices_;
};

// Rounding of the loss (about 60) seen through the difference: 60 * 2^-53 / kStep, with room for its sums.
constexpr double kRounding = 3e-8;

TEST_F(Gradient, AgreesWithCentralDifferences) {
  const Philox random{11, RandomPurpose::kTest};
  uint64_t tensor = 0;
  double worst = 0;
  for (layers::Parameter* p : rig_->model().parameters()) {
    ++tensor;
    if (!p->trainable) continue;
    const auto values = rig_->read(p->master), gradient = rig_->read(p->grad);
    const double size = norm(gradient);
    const auto expect_close = [&](double numeric, double analytic, double scale, const std::string& what) {
      EXPECT_LE(std::abs(numeric - analytic), kTolerance * scale + kRounding)
          << p->name << " " << what << ": " << analytic;
      worst = std::max(worst, std::abs(numeric - analytic) / scale);
    };
    // Along the gradient itself, where nothing cancels, and along a random direction.
    std::vector<double> along(values.size()), direction(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      along[i] = size > 0 ? gradient[i] / size : 0;
      direction[i] = random.normal(tensor, i) / std::sqrt(values.size());
    }
    expect_close(difference(*p, values, along), size, size, "along the gradient");
    double analytic = 0;
    for (size_t i = 0; i < values.size(); ++i) analytic += gradient[i] * direction[i];
    expect_close(difference(*p, values, direction), analytic, size, "along a random direction");
    // The largest element and two others.
    const auto largest = std::max_element(gradient.begin(), gradient.end(),
                                          [](double a, double b) { return std::abs(a) < std::abs(b); });
    for (const uint64_t element :
         {static_cast<uint64_t>(largest - gradient.begin()), random.below(tensor, 1 << 20, values.size()),
          random.below(tensor, 1 << 21, values.size())}) {
      std::vector<double> unit(values.size(), 0.0);
      unit[element] = 1;
      expect_close(difference(*p, values, unit), gradient[element], std::abs(*largest),
                   "element " + std::to_string(element));
    }
  }
  RecordProperty("worst_relative_error", fmt::format("{:.2e}", worst));
}

TEST_F(Gradient, RecomputeChangesNoBit) {
  for (const Recompute recompute : {Recompute::kBlock, Recompute::kFull}) {
    const auto other = make_rig(recompute);
    other->loss_and_gradients(batch_, kExtra);
    for (const layers::Parameter* p : rig_->model().parameters()) {
      if (!p->trainable) continue;
      EXPECT_EQ(rig_->read(p->grad), other->read(other->parameter(p->name).grad)) << p->name;
    }
  }
}

// A step may start on gradients of any value: those of a step that was given up, of memory never written. Documents of
// two tokens reach neither a compressor nor an indexer, and a document of one token has no row of the prediction block.
TEST(StaleGradients, ChangeNothing) {
  ModelOptions options;
  options.mtp = true;
  const ExtraLosses extra{.mtp = 0.3};
  for (const auto& documents : {std::vector<std::vector<int32_t>>{golden::tokens()}, {{3, 1}, {4, 2}}, {{5, 1}}}) {
    const auto batch = next_token_batch(documents);
    const auto clean = golden::make_rig(layers::Precision::kFp32, backend::cpu(), options);
    const auto stale = golden::make_rig(layers::Precision::kFp32, backend::cpu(), options);
    for (const layers::Parameter* p : stale->model().parameters()) {
      if (p->grad.defined()) stale->ctx().ops.fill(nullptr, p->grad, std::numeric_limits<double>::quiet_NaN());
    }
    EXPECT_EQ(stale->loss_and_gradients(batch, extra), clean->loss_and_gradients(batch, extra));
    for (size_t i = 0; i < clean->model().parameters().size(); ++i) {
      const layers::Parameter *expected = clean->model().parameters()[i], *found = stale->model().parameters()[i];
      if (expected->grad.defined()) EXPECT_EQ(stale->read(found->grad), clean->read(expected->grad)) << found->name;
    }
  }
}

}  // namespace
}  // namespace temper::model
