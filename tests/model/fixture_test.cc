// Tiny models saved by transformers (tests/fixtures/v4): our logits, loss, gradients and a 20-step AdamW curve against
// those of transformers' DeepseekV4ForCausalLM. The lines of a fixture are packed into one row here and were run one by
// one there, so that packing is tested too. What golden.safetensors holds stands in tools/make_fixtures.py.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "checkpoint/model_dir.h"
#include "checkpoint/safetensors.h"
#include "optim/adamw.h"
#include "rig.h"

namespace temper::model {
namespace {

constexpr double kTolerance = 1e-4;

class Fixture : public testing::TestWithParam<const char*> {
 protected:
  Fixture()
      : dir_(std::filesystem::path(TEMPER_SOURCE_DIR "/tests/fixtures/v4") / GetParam()),
        golden_(dir_ / "golden.safetensors") {
    std::vector<std::vector<int32_t>> lines;
    for (int i = 0; golden_.find("input_ids." + std::to_string(i)); ++i) {
      const auto ids = golden("input_ids." + std::to_string(i));
      lines.emplace_back(ids.begin(), ids.end());
    }
    batch_ = next_token_batch(lines);
    for (size_t i = 0; i < lines.size(); ++i) {
      const auto labels = golden("labels." + std::to_string(i));
      for (size_t t = 0; t + 1 < labels.size(); ++t) {
        if (labels[t + 1] >= 0) continue;
        batch_.targets[batch_.cu_seqlens[i] + t] = -1;
        batch_.weights[batch_.cu_seqlens[i] + t] = 0;
      }
    }
    for (const int32_t target : batch_.targets) num_targets_ += target >= 0;
  }

  std::unique_ptr<Rig> load(layers::Precision precision) const {
    ModelOptions options;
    options.precision = precision;
    options.max_tokens = static_cast<int64_t>(batch_.tokens.size());
    options.logit_chunk = 50;
    auto rig = std::make_unique<Rig>(checkpoint::load_config(dir_), options, backend::cpu());
    checkpoint::load_weights(dir_, rig->ctx(), rig->model().parameters());
    return rig;
  }

  std::vector<double> golden(const std::string& name) const {
    const checkpoint::StoredTensor* tensor = golden_.find(name);
    CHECK(tensor != nullptr, name);
    return tensor->dtype == checkpoint::FileDType::kI64 ? elements<int64_t>(*tensor) : elements<float>(*tensor);
  }

  template <class T>
  static std::vector<double> elements(const checkpoint::StoredTensor& tensor) {
    std::vector<T> raw(tensor.size());
    std::memcpy(raw.data(), tensor.data, raw.size() * sizeof(T));
    return {raw.begin(), raw.end()};
  }

  std::filesystem::path dir_;
  checkpoint::SafetensorsFile golden_;
  layers::MicroBatch batch_;
  int64_t num_targets_ = 0;
};

double largest(std::span<const double> values) {
  double max = 0;
  for (const double value : values) max = std::max(max, std::abs(value));
  return max;
}

double largest_difference(std::span<const double> a, std::span<const double> b) {
  CHECK(a.size() == b.size(), a.size(), b.size());
  double max = 0;
  for (size_t i = 0; i < a.size(); ++i) max = std::max(max, std::abs(a[i] - b[i]));
  return max;
}

TEST_P(Fixture, LogitsAndLoss) {
  const auto rig = load(layers::Precision::kFp32);
  const std::vector<double> logits = rig->logits(batch_);
  const int64_t V = rig->model().config().vocab_size;
  for (size_t i = 0; i + 1 < batch_.cu_seqlens.size(); ++i) {
    const auto expected = golden("logits." + std::to_string(i));
    const std::span line(logits.data() + batch_.cu_seqlens[i] * V, expected.size());
    EXPECT_LE(largest_difference(line, expected), kTolerance * largest(expected)) << "line " << i;
  }
  const double expected_loss = golden("loss")[0];
  EXPECT_NEAR(rig->loss(batch_) / num_targets_, expected_loss, kTolerance * expected_loss);
}

TEST_P(Fixture, EveryGradient) {
  const auto rig = load(layers::Precision::kFp32);
  rig->loss_and_gradients(batch_);
  double global = 0;
  for (const auto& tensor : golden_.tensors())
    if (tensor.name.starts_with("grad.")) global = std::max(global, largest(golden(tensor.name)));
  size_t num_compared = 0;
  for (const layers::Parameter* p : rig->model().parameters()) {
    ASSERT_EQ(p->trainable, golden_.find("grad." + p->name) != nullptr) << p->name;
    if (!p->trainable) continue;
    std::vector<double> gradient = rig->read(p->grad);
    for (double& x : gradient) x /= static_cast<double>(num_targets_);
    const auto expected = golden("grad." + p->name);
    // Gradients that vanish in exact arithmetic (the comb of layer 0) are judged by the size of the others.
    const double scale = std::max(largest(expected), 1e-3 * global);
    EXPECT_LE(largest_difference(gradient, expected), kTolerance * scale) << p->name;
    ++num_compared;
  }
  EXPECT_EQ(num_compared, static_cast<size_t>(std::ranges::count_if(
                              golden_.tensors(), [](const auto& t) { return t.name.starts_with("grad."); })));
}

TEST_P(Fixture, AdamwCurve) {
  const auto rig = load(layers::Precision::kFp32);
  optim::Adamw adamw({.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1});
  const std::vector<double> expected = golden("curve.loss");
  ASSERT_EQ(expected.size(), 20u);
  const double lr = golden("curve.lr")[0];
  for (size_t step = 0; step < expected.size(); ++step) {
    const double loss = rig->loss_and_gradients(batch_) / num_targets_;
    EXPECT_NEAR(loss, expected[step], kTolerance * expected[step]) << "step " << step;
    adamw.step(rig->ctx(), rig->model().parameters(), lr, 1.0 / num_targets_);
  }
}

TEST_P(Fixture, LossInBf16) {
  const auto rig = load(layers::Precision::kBf16);
  const double expected = golden("loss")[0];
  EXPECT_NEAR(rig->loss(batch_) / num_targets_, expected, 0.02 * expected);
}

INSTANTIATE_TEST_SUITE_P(Transformers, Fixture,
                         testing::Values("sliding", "csa_yarn", "csa_rate3", "hca_rate8", "mixed_rate16",
                                         "pro_order_rate32", "official_spelling"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace temper::model
