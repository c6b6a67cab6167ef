// The golden model (architecture page, section 14) through the scalar reference in float64, and through the fast fp32
// path.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "golden.h"
#include "model/model_impl.h"
#include "rig.h"

namespace temper::model {
namespace {

constexpr double kExact = 1e-10;  // published to 12 decimals or 13 digits
constexpr int64_t kLast = 28;     // the position whose values are published

double absolute_sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0, [](double sum, double x) { return sum + std::abs(x); });
}

void expect_values(const std::vector<double>& all, int64_t begin, const std::vector<double>& expected,
                   const std::string& what) {
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(all[begin + i], expected[i], kExact) << what << " [" << i << "]";
}

void expect_relative(double found, double expected, const std::string& what) {
  EXPECT_NEAR(found, expected, kExact * std::abs(expected)) << what;
}

TEST(Golden, ParametersAreThePublishedOnes) {
  expect_values(golden::parameters().at("model.embed_tokens.weight").values, 0,
                {0.8418311979621649, -0.7258670362643898, 0.4083457738161087}, "embedding");
  EXPECT_NEAR(golden::parameters().at("lm_head.weight").values.back(), 0.2967604797333479, 1e-15);
}

class GoldenFloat64 : public testing::Test {
 protected:
  std::unique_ptr<Rig> rig_ = golden::make_rig(layers::Precision::kFp64, backend::cpu_reference());
  layers::MicroBatch batch_ = next_token_batch({golden::tokens()});
};

TEST_F(GoldenFloat64, LogitsAndLoss) {
  const std::vector<double> logits = rig_->logits(batch_);
  ASSERT_EQ(logits.size(), 29u * 32u);
  expect_values(logits, 0, {1.9738030591886078, 0.3262349997335802, 1.4009154755097535, -0.12781456990661355}, "row 0");
  expect_values(logits, kLast * 32, {-0.7207877377800752, 1.1248987804192407, 0.6664190447710389, -0.13915542768434874},
                "row 28");
  expect_relative(std::accumulate(logits.begin(), logits.end(), 0.0), -15.089679311727242, "sum");
  expect_relative(absolute_sum(logits), 664.2036483891861, "sum of absolute values");
  expect_relative(rig_->loss(batch_) / 28, 3.9318013112716024, "mean loss");
}

TEST_F(GoldenFloat64, PackedDocumentsDoNotSeeEachOther) {
  const std::vector<int32_t> ids = golden::tokens();
  const auto packed = next_token_batch({{ids.begin(), ids.begin() + 13}, {ids.begin() + 13, ids.end()}});
  expect_relative(rig_->loss(packed) / 27, 3.830904340451922, "mean loss");
  expect_values(rig_->logits(packed), kLast * 32,
                {-1.224129534665789, 1.8521994507750228, 0.22958103378559, -0.36688161147547804},
                "second document, row 15");
}

struct LayerTrace {
  std::vector<double> attention_out;
  double attention_sum;
  std::vector<double> moe_out;
  double moe_sum;
  std::vector<double> experts, stream0;
  double stream_sum;
};

const LayerTrace kTrace[] = {
    {{-0.020310672530, 0.282608303734, -0.004173626611},
     131.912776601552,
     {-0.539263859250, 0.001672826442, 0.136494266879},
     152.437245027016,
     {1, 4, 6},
     {-0.685730006925, -0.889040694650, -0.577531404615},
     1346.195234665897},
    {{0.378128058847, 0.765271722159, -0.094415204063},
     132.772470035489,
     {-0.186312527696, -0.540716409304, -0.149345523538},
     148.843471416222,
     {1, 2, 3},
     {-1.068764959383, -0.850792010243, -0.828698835270},
     1635.863131087522},
    {{0.172640481587, -0.046257259798, 0.132388406827},
     139.728667462949,
     {0.436425753702, 0.704142841492, -0.935786316016},
     159.074571043482,
     {2, 5, 6},
     {-0.212070618701, -0.047960584456, -1.813586024719},
     1932.890955496099},
    {{-0.048994159751, -0.668014222558, -0.349425848412},
     147.173114733133,
     {0.423481518523, 0.341264238589, -0.540920198321},
     156.802697458451,
     {1, 5, 7},
     {0.214010203926, -0.577600384793, -2.948845623264},
     2212.657526701673},
};

TEST_F(GoldenFloat64, TraceOfEveryLayer) {
  rig_->loss(batch_);
  const Choices chosen = rig_->model().choices(rig_->ctx());
  for (int64_t layer = 0; layer < 4; ++layer) {
    const std::string name = "layer " + std::to_string(layer);
    const Block::Saved& saved = rig_->model().impl().blocks[layer]->saved();
    const auto attention = rig_->read(saved.attention_site.y_TD.first(29));
    const auto moe = rig_->read(saved.moe_site.y_TD.first(29));
    const auto streams = rig_->read(rig_->model().streams(layer + 1));
    const auto experts = chosen.layers[layer].expert_TK;
    expect_values(attention, kLast * 16, kTrace[layer].attention_out, name + " attention");
    expect_relative(absolute_sum(attention), kTrace[layer].attention_sum, name + " attention sum");
    expect_values(moe, kLast * 16, kTrace[layer].moe_out, name + " experts' output");
    expect_relative(absolute_sum(moe), kTrace[layer].moe_sum, name + " experts' sum");
    expect_values({experts.begin(), experts.end()}, kLast * 3, kTrace[layer].experts, name + " chosen experts");
    expect_values(streams, kLast * 4 * 16, kTrace[layer].stream0, name + " stream 0");
    expect_relative(absolute_sum(streams), kTrace[layer].stream_sum, name + " streams' sum");
  }
}

TEST_F(GoldenFloat64, HyperConnectionCoefficients) {
  rig_->loss(batch_);
  const auto& site = rig_->model().impl().blocks[1]->saved().attention_site;
  const auto& hyper = site.hyper;
  const std::vector<double> pre = {0.811972583486, 0.688309827347, 0.553873200708, 0.454212182813};
  const auto streams = rig_->read(rig_->model().streams(1));
  std::vector<double> u(16);
  for (size_t i = 0; i < 4; ++i)
    for (size_t d = 0; d < 16; ++d) u[d] += pre[i] * streams[(kLast * 4 + i) * 16 + d];
  expect_values(rig_->read(site.u_TD.first(29)), kLast * 16, u, "u");
  expect_values(rig_->read(hyper.post_TM), kLast * 4, {0.567248390452, 1.341413531330, 0.381898802356, 1.164869660421},
                "post");
  expect_values(rig_->read(hyper.comb_TMM), kLast * 16,
                {0.155442206591, 0.224294756576, 0.425268127161, 0.194993909672,   //
                 0.362959181541, 0.089044008820, 0.217099243346, 0.330896566290,   //
                 0.046273760466, 0.607592973729, 0.171892714322, 0.174239551490,   //
                 0.435323851401, 0.079067260875, 0.185738915172, 0.299868972548},  //
                "comb");
}

TEST_F(GoldenFloat64, IndexerSelections) {
  rig_->loss(batch_);
  const Choices chosen = rig_->model().choices(rig_->ctx());
  const auto selected = [&](int64_t layer) {
    const auto& values = chosen.layers[layer].selected_TA;
    return std::vector<double>(values.begin(), values.end());
  };
  const auto l1 = selected(1), l3 = selected(3);
  expect_values(l1, 28 * 3, {3, 4, 6}, "l1 t=28");
  expect_values(l1, 19 * 3, {0, 2, 3}, "l1 t=19");
  expect_values(l3, 28 * 3, {0, 1, 2}, "l3 t=28");
  expect_values(l3, 19 * 3, {1, 3, 4}, "l3 t=19");
}

// Norm of a gradient, and its first element where that is published (NAN where not).
struct GradientTrace {
  const char* name;
  double norm, first = NAN;
};

const GradientTrace kGradients[] = {
    {"model.embed_tokens.weight", 1.107058499512},
    {"lm_head.weight", 0.7415647411950, 8.947675702068e-03},
    {"model.norm.weight", 0.2612762152903, 5.785235878135e-02},
    {"model.hc_head.hc_fn", 2.945729497184e-02, 2.777659953847e-04},
    {"model.layers.0.attn_hc.fn", 0.5073328886513},
    {"model.layers.0.attn_hc.base", 6.025222285069e-02},
    {"model.layers.1.ffn_hc.fn", 0.1210566587175, -8.630690230755e-03},
    {"model.layers.0.self_attn.q_a_proj.weight", 1.695149794610, 0.1274859282015},
    {"model.layers.0.self_attn.sinks", 2.843681398370e-02, 6.173546133848e-03},
    {"model.layers.1.self_attn.q_b_proj.weight", 0.3672144007987, -8.108020677831e-03},
    {"model.layers.1.self_attn.kv_proj.weight", 0.9563777073679, -2.693457542534e-02},
    {"model.layers.1.self_attn.sinks", 3.185722887821e-02, -6.674231714860e-03},
    {"model.layers.1.self_attn.o_a_proj.weight", 0.9576109898830, -1.368131155652e-02},
    {"model.layers.1.self_attn.o_b_proj.weight", 0.6341961132346, -1.619802945151e-02},
    {"model.layers.1.self_attn.compressor.kv_proj.weight", 0.2586153608784, -4.603399653936e-03},
    {"model.layers.1.self_attn.compressor.gate_proj.weight", 0.1533671852137, 2.718933863724e-03},
    {"model.layers.1.self_attn.compressor.position_bias", 4.266660082079e-02, 2.838096444120e-04},
    {"model.layers.1.self_attn.compressor.kv_norm.weight", 6.579264981710e-02, 2.590043413998e-02},
    {"model.layers.2.self_attn.compressor.kv_proj.weight", 0.1856176799992, -1.431345349697e-02},
    {"model.layers.2.self_attn.compressor.position_bias", 2.689984453122e-02, -5.499495821687e-04},
    {"model.layers.2.mlp.gate.weight", 4.972107312320e-02, -5.664800893188e-03},
    {"model.layers.0.mlp.gate.weight", 0.1450531798255, -1.132794584874e-02},
    {"model.layers.1.mlp.experts.gate_up_proj", NAN, 4.054062299760e-03},
    {"model.layers.1.mlp.experts.down_proj", 0.2663176747514, -8.366731052156e-03},
    {"model.layers.3.mlp.shared_experts.up_proj.weight", 0.1592771117035, 4.325597813031e-03},
};

// dLoss/dlogp = -1 is exact in any precision; the published gradients are of the mean over 28 targets.
std::vector<double> mean_gradient(Rig& rig, const layers::Parameter& parameter) {
  std::vector<double> gradient = rig.read(parameter.grad);
  for (double& x : gradient) x /= 28;
  return gradient;
}

TEST_F(GoldenFloat64, Gradients) {
  rig_->loss_and_gradients(batch_);
  double squares = 0;
  for (const layers::Parameter* p : rig_->model().parameters()) {
    if (!p->trainable) continue;
    const double n = norm(mean_gradient(*rig_, *p));
    squares += n * n;
  }
  expect_relative(std::sqrt(squares), 4.731087917683357, "global norm");
  for (const GradientTrace& expected : kGradients) {
    const auto gradient = mean_gradient(*rig_, rig_->parameter(expected.name));
    if (!std::isnan(expected.norm)) expect_relative(norm(gradient), expected.norm, expected.name);
    if (!std::isnan(expected.first)) expect_relative(gradient[0], expected.first, expected.name);
  }
}

// w1 (gate) is the upper half of every expert's stacked matrix.
TEST_F(GoldenFloat64, GateHalfOfTheExperts) {
  rig_->loss_and_gradients(batch_);
  const auto gradient = mean_gradient(*rig_, rig_->parameter("model.layers.1.mlp.experts.gate_up_proj"));
  std::vector<double> w1;
  for (int64_t e = 0; e < 8; ++e)
    w1.insert(w1.end(), gradient.begin() + e * 2 * 160, gradient.begin() + e * 2 * 160 + 160);
  expect_relative(norm(w1), 0.3198044302607, "w1");
}

TEST_F(GoldenFloat64, IndexerIsNotTrained) {
  int64_t indexer_tensors = 0;
  for (const layers::Parameter* p : rig_->model().parameters()) {
    if (p->name.find(".indexer.") == std::string::npos) continue;
    ++indexer_tensors;
    EXPECT_FALSE(p->trainable) << p->name;
    EXPECT_FALSE(p->grad.defined()) << p->name;
  }
  EXPECT_EQ(indexer_tensors, 2 * 6);
}

double difference_norm(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> difference(a.size());
  for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return norm(difference);
}

TEST(GoldenFloat32, FastPathAgreesWithFloat64) {
  ModelOptions options;
  options.mtp = true, options.indexer = IndexerUse::kTrain;
  const ExtraLosses extra{.mtp = 0.3, .balance = 0.1, .indexer = 1};
  const auto exact = golden::make_rig(layers::Precision::kFp64, backend::cpu_reference(), options);
  const auto fast = golden::make_rig(layers::Precision::kFp32, backend::cpu(), options);
  const auto batch = next_token_batch({golden::tokens()});
  const auto expected_logits = exact->logits(batch);
  EXPECT_LE(difference_norm(fast->logits(batch), expected_logits), 1e-5 * norm(expected_logits));
  const double expected_loss = exact->loss_and_gradients(batch, extra);
  EXPECT_NEAR(fast->loss_and_gradients(batch, extra), expected_loss, 1e-5 * expected_loss);
  const auto losses = fast->model().auxiliary_losses(fast->ctx()),
             expected = exact->model().auxiliary_losses(exact->ctx());
  for (int64_t l = 0; l < 5; ++l) {
    EXPECT_NEAR(losses.balance_L[l], expected.balance_L[l], 1e-5) << l;
    EXPECT_NEAR(losses.indexer_L[l], expected.indexer_L[l], 1e-5 * 29) << l;
  }
  // A gradient is judged against its own norm, but not more finely than fp32 can sum terms of the size of the whole
  // gradient: the three scales of a hyper-connection are sums that nearly cancel.
  const double floor = 1e-2 * 28 * 4.731087917683357;
  for (const layers::Parameter* p : exact->model().parameters()) {
    if (!p->trainable) continue;
    const auto expected = exact->read(p->grad);
    const double error = difference_norm(fast->read(fast->parameter(p->name).grad), expected);
    EXPECT_LE(error, 1e-5 * std::max(norm(expected), floor)) << p->name;
  }
}

}  // namespace
}  // namespace temper::model
