// The golden model's other losses (architecture page 14.2, 14.4, 14.5): multi-token prediction, sequence balance, and
// the indexer's, in float64 through the scalar reference.
#include <gtest/gtest.h>

#include <cmath>

#include "golden.h"

namespace temper::model {
namespace {

void expect_relative(double found, double expected, double tolerance, const std::string& what) {
  EXPECT_NEAR(found, expected, tolerance * std::abs(expected)) << what;
}

// Norm of a gradient divided by `scale`. "experts.gate_up_proj:w1" and ":w3" are the gate and up rows of all experts.
double gradient_norm(Rig& rig, const std::string& name, double scale) {
  const size_t colon = name.find(':');
  std::vector<double> values = rig.read(rig.parameter(name.substr(0, colon)).grad);
  if (colon != name.npos) {
    const size_t half = 10 * 16, first = name.substr(colon) == ":w1" ? 0 : half;
    std::vector<double> rows;
    for (size_t at = first; at < values.size(); at += 2 * half)
      rows.insert(rows.end(), values.begin() + at, values.begin() + at + half);
    values = rows;
  }
  return norm(values) / scale;
}

double global_norm(Rig& rig, double scale) {
  double sum = 0;
  for (const layers::Parameter* p : rig.model().parameters())
    if (p->trainable) sum += std::pow(norm(rig.read(p->grad)), 2);
  return std::sqrt(sum) / scale;
}

// Main loss: a mean over 28 targets; that of the prediction block over 27.
class GoldenMtp : public testing::Test {
 protected:
  static ModelOptions options() {
    ModelOptions options;
    options.mtp = true;
    return options;
  }
  std::unique_ptr<Rig> rig_ = golden::make_rig(layers::Precision::kFp64, backend::cpu_reference(), options());
  layers::MicroBatch batch_ = next_token_batch({golden::tokens()});
  ExtraLosses extra_{0.3 * 28 / 27};
};

TEST_F(GoldenMtp, LogitsAndLoss) {
  const double main = rig_->loss(batch_) / 28, both = rig_->loss(batch_, nullptr, extra_) / 28;
  EXPECT_EQ(rig_->model().mtp_batch().tokens.size(), 28u);
  expect_relative((both - main) / 0.3, 3.738299961158452, 1e-12, "loss of the prediction block");
  expect_relative(both, 5.053291299619138, 1e-13, "main + 0.3 * MTP");
  std::vector<double> logits;
  rig_->model().mtp_logits(rig_->ctx(), 0, 1, logits);
  const double expected[] = {0.09240348737002008, -0.03308717248141418, -0.6825138819288297, 2.013188425427985};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(logits[i], expected[i], 1e-12) << i;
}

struct Row {
  const char* name;
  double norms[5];  // l0, l1, l2, l3, mtp
};
const Row kNorms[] = {
    {"attn_hc.fn", {5.236778498e-01, 2.604373647e-01, 2.202494456e-01, 1.416186399e-01, 5.308734909e-02}},
    {"attn_hc.base", {6.664686612e-02, 3.023106917e-02, 8.191197536e-03, 8.369751802e-03, 4.997297664e-03}},
    {"attn_hc.scale", {7.174504388e-03, 4.398895462e-02, 1.546036577e-02, 6.064078297e-03, 6.665744851e-03}},
    {"ffn_hc.fn", {3.387142588e-01, 1.347353252e-01, 8.506724795e-02, 1.165004761e-01, 6.039278166e-02}},
    {"ffn_hc.base", {7.463728638e-02, 1.458060422e-02, 8.072283129e-03, 1.326458290e-02, 7.631532379e-03}},
    {"ffn_hc.scale", {1.985940214e-02, 4.038311758e-03, 1.057171357e-02, 8.377338879e-03, 4.243372479e-03}},
    {"input_layernorm.weight", {3.242676434e-01, 2.712841783e-01, 1.156440781e-01, 1.411255850e-01, 3.149201931e-02}},
    {"post_attention_layernorm.weight",
     {3.305772594e-01, 2.134785576e-01, 1.838357918e-01, 9.561451776e-02, 5.688687595e-02}},
    {"self_attn.q_a_proj.weight",
     {1.862545601e+00, 4.883781952e-01, 2.574193631e-01, 3.331284441e-01, 8.998213913e-02}},
    {"self_attn.q_a_norm.weight",
     {2.936601716e-01, 1.004745088e-01, 5.019063041e-02, 6.758081508e-02, 2.162105819e-02}},
    {"self_attn.q_b_proj.weight",
     {1.146984766e+00, 3.822338140e-01, 2.149255017e-01, 2.568931982e-01, 6.892820042e-02}},
    {"self_attn.kv_proj.weight", {1.660342477e+00, 1.040135939e+00, 4.999149881e-01, 3.812679904e-01, 1.937773765e-01}},
    {"self_attn.kv_norm.weight", {4.011656310e-01, 2.403029150e-01, 9.573664785e-02, 9.531657674e-02, 4.988613037e-02}},
    {"self_attn.sinks", {3.324975497e-02, 3.824613991e-02, 1.526359145e-02, 4.684931434e-03, 6.894149681e-03}},
    {"self_attn.o_a_proj.weight",
     {2.141145269e+00, 9.820647919e-01, 6.430671581e-01, 5.323051122e-01, 2.381894894e-01}},
    {"self_attn.o_b_proj.weight",
     {1.550108536e+00, 6.449288124e-01, 5.667102206e-01, 2.663267595e-01, 1.662721825e-01}},
    {"mlp.gate.weight", {1.843370346e-01, 9.552632420e-02, 5.489894820e-02, 3.385151098e-02, 1.535089299e-02}},
    {"mlp.experts.gate_up_proj:w1",
     {5.975821298e-01, 3.050196330e-01, 2.562537986e-01, 1.387471765e-01, 5.481454621e-02}},
    {"mlp.experts.gate_up_proj:w3",
     {5.114740713e-01, 3.319994222e-01, 2.613774043e-01, 1.418298877e-01, 6.725588909e-02}},
    {"mlp.experts.down_proj", {5.402430974e-01, 2.766402872e-01, 2.778567887e-01, 1.226691902e-01, 5.834312422e-02}},
    {"mlp.shared_experts.gate_proj.weight",
     {5.186439192e-01, 3.292479358e-01, 2.974632430e-01, 2.204059399e-01, 8.523203465e-02}},
    {"mlp.shared_experts.up_proj.weight",
     {4.221674813e-01, 3.667024491e-01, 2.676571353e-01, 1.772008608e-01, 7.906004149e-02}},
    {"mlp.shared_experts.down_proj.weight",
     {6.108493574e-01, 3.960995033e-01, 3.651191873e-01, 1.498364677e-01, 6.535802955e-02}},
    {"self_attn.compressor.kv_proj.weight", {NAN, 2.845117152e-01, 1.724917748e-01, 2.264823879e-01, NAN}},
    {"self_attn.compressor.gate_proj.weight", {NAN, 1.465333359e-01, 1.150117833e-01, 1.367896173e-01, NAN}},
    {"self_attn.compressor.position_bias", {NAN, 4.043611668e-02, 2.386037633e-02, 2.867882630e-02, NAN}},
    {"self_attn.compressor.kv_norm.weight", {NAN, 6.190875650e-02, 4.298844525e-02, 6.726937248e-02, NAN}},
};

TEST_F(GoldenMtp, Gradients) {
  rig_->loss_and_gradients(batch_, extra_);
  expect_relative(global_norm(*rig_, 28), 5.133021023139798, 1e-12, "global");
  const std::string prefixes[] = {"model.layers.0.", "model.layers.1.", "model.layers.2.", "model.layers.3.", "mtp.0."};
  for (const Row& row : kNorms) {
    for (int i = 0; i < 5; ++i) {
      if (std::isnan(row.norms[i])) continue;
      expect_relative(gradient_norm(*rig_, prefixes[i] + row.name, 28), row.norms[i], 1e-9, prefixes[i] + row.name);
    }
  }
  const std::pair<const char*, double> others[] = {
      {"model.embed_tokens.weight", 1.165739279}, {"lm_head.weight", 0.7790603630},
      {"model.norm.weight", 0.2612762153},        {"model.hc_head.hc_fn", 2.945729497e-02},
      {"model.hc_head.hc_base", 2.897191664e-03}, {"model.hc_head.hc_scale", 2.234998058e-03},
      {"mtp.0.e_proj.weight", 3.681954279e-01},   {"mtp.0.h_proj.weight", 3.972200915e-01},
      {"mtp.0.enorm.weight", 6.186931519e-02},    {"mtp.0.hnorm.weight", 5.435942743e-02},
      {"mtp.0.norm.weight", 7.569449994e-02},     {"mtp.0.hc_head.hc_fn", 2.404139073e-02},
      {"mtp.0.hc_head.hc_base", 2.732582315e-03}, {"mtp.0.hc_head.hc_scale", 2.843647478e-03}};
  for (const auto& [name, expected] : others) expect_relative(gradient_norm(*rig_, name, 28), expected, 1e-9, name);
}

// All positions without a target: only the auxiliary loss has a gradient.
layers::MicroBatch without_targets() {
  layers::MicroBatch batch = next_token_batch({golden::tokens()});
  for (auto& target : batch.targets) target = -1;
  return batch;
}

TEST(GoldenAuxiliary, SequenceBalanceLoss) {
  const auto rig = golden::make_rig(layers::Precision::kFp64, backend::cpu_reference());
  rig->loss_and_gradients(without_targets(), {.balance = 1});
  const auto losses = rig->model().auxiliary_losses(rig->ctx()).balance_L;
  EXPECT_EQ(losses[0], 0) << "layers routed by token id have no balance loss";
  expect_relative(losses[1], 1.0815174367952283, 1e-13, "l1");
  expect_relative(losses[2], 1.0472921327328366, 1e-13, "l2");
  expect_relative(losses[3], 1.0150111143802134, 1e-13, "l3");
  const std::pair<const char*, double> norms[] = {{"model.embed_tokens.weight", 0.1647047146817},
                                                  {"model.layers.0.mlp.gate.weight", 1.541118501885e-02},
                                                  {"model.layers.1.mlp.gate.weight", 6.993555520198e-02},
                                                  {"model.layers.2.mlp.gate.weight", 5.454693166389e-02},
                                                  {"model.layers.3.mlp.gate.weight", 4.256227346507e-02}};
  for (const auto& [name, expected] : norms) expect_relative(gradient_norm(*rig, name, 1), expected, 1e-11, name);
}

TEST(GoldenAuxiliary, IndexerLossStopsAtItsInputs) {
  ModelOptions options;
  options.indexer = IndexerUse::kTrain;
  const auto rig = golden::make_rig(layers::Precision::kFp64, backend::cpu_reference(), options);
  rig->loss_and_gradients(without_targets(), {.indexer = 1.0 / 29});
  const auto losses = rig->model().auxiliary_losses(rig->ctx()).indexer_L;
  expect_relative(losses[1] / 29, 0.07814519598432028, 1e-12, "l1");
  expect_relative(losses[3] / 29, 0.11214472904754125, 1e-12, "l3");
  const struct {
    const char* name;
    double l1, l3;
  } norms[] = {{"q_b_proj.weight", 0.1237036234209, 0.1404267015347},
               {"scorer.weights_proj.weight", 0.1113055667261, 0.1261942616563},
               {"kv_proj.weight", 0.1490428861876, 0.1998299634259},
               {"gate_proj.weight", 8.945047320283e-02, 0.1380775667986},
               {"position_bias", 2.107612920302e-02, 3.363740851795e-02},
               {"kv_norm.weight", 4.162430552647e-02, 5.541996808741e-02}};
  for (const auto& [name, l1, l3] : norms) {
    const std::string indexer = std::string(".self_attn.compressor.indexer.") + name;
    expect_relative(gradient_norm(*rig, "model.layers.1" + indexer, 1), l1, 1e-11, "l1 " + indexer);
    expect_relative(gradient_norm(*rig, "model.layers.3" + indexer, 1), l3, 1e-11, "l3 " + indexer);
  }
  for (const layers::Parameter* p : rig->model().parameters())
    if (p->trainable && p->name.find(".indexer.") == std::string::npos) {
      EXPECT_EQ(norm(rig->read(p->grad)), 0) << p->name;
    }
}

}  // namespace
}  // namespace temper::model
