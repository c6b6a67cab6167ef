// Faults injected at many places are found there.
#include "train/incident.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "train/incident_rig.h"
#include "train/tiny.h"

namespace temper::train {
namespace {

using backend::OpCall;
using backend::OpId;
using layers::Precision;
using ::testing::HasSubstr;
using testing::IncidentRig;
using testing::operand_of;
using testing::set_element;
using Index = std::vector<int64_t>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Micro-batch 1 of the rig has documents of 17, 5 and 40 tokens: token 25 is the fourth of the third.
constexpr int64_t kToken = 25;
void expect_token_25(const BadValue& bad) {
  ASSERT_TRUE(bad.place) << describe(bad);
  EXPECT_EQ(bad.place->micro_batch, 1);
  EXPECT_EQ(bad.place->token, kToken) << describe(bad);
  EXPECT_EQ(bad.place->document, 2);
  EXPECT_EQ(bad.place->position, 3);
  EXPECT_EQ(bad.place->sample, "data.jsonl:12");
}

struct Expected {
  std::string instruction, op, operand, tensor;
  int64_t layer;
};

// Puts a NaN into an output of the nth call of an op in micro-batch 1 and expects it to be found there.
class InjectedNan : public ::testing::Test {
 protected:
  void inject(OpId op, int64_t nth, const std::string& operand, Index index) {
    rig_.fault().op = op, rig_.fault().micro_batch = 1, rig_.fault().nth = nth;
    rig_.fault().action = [=](const OpCall& call) { set_element(operand_of(call, operand), index, kNan); };
  }
  BadValue find(const Expected& expected) {
    const Incident incident = rig_.find();
    EXPECT_EQ(incident.judgement.anomaly, Anomaly::kNonFinite);
    EXPECT_FALSE(incident.is_transient);
    if (!incident.bad) {
      ADD_FAILURE() << "nothing found: " << describe(incident);
      return {};
    }
    const BadValue& bad = *incident.bad;
    EXPECT_EQ(bad.instruction, expected.instruction);
    EXPECT_EQ(bad.op, expected.op);
    EXPECT_EQ(bad.operand, expected.operand);
    EXPECT_EQ(bad.layer, expected.layer);
    EXPECT_THAT(bad.tensor, HasSubstr(expected.tensor));
    EXPECT_TRUE(std::isnan(bad.value));
    EXPECT_FALSE(bad.was_read);
    return bad;
  }
  IncidentRig rig_{Precision::kBf16, true};
};

TEST_F(InjectedNan, InAttention) {
  inject(OpId::attention_forward, 2, "o_TNH", {kToken, 1, 3});
  const BadValue bad = find({"forward of micro-batch 1", "attention_forward", "o_TNH", "model.layers.2.self_attn", 2});
  EXPECT_EQ(bad.index, (Index{kToken, 1, 3}));
  expect_token_25(bad);
}

TEST_F(InjectedNan, InAnExpertsProduct) {
  inject(OpId::grouped_matmul, 2, "", {});
  rig_.fault().action = [&](const OpCall& call) {
    set_element(operand_of(call, "c_RN"), {rig_.fault().expert_row(kToken), 5}, kNan);
  };
  expect_token_25(find({"forward of micro-batch 1", "grouped_matmul", "c_RN", "model.layers.1.mlp", 1}));
}

TEST_F(InjectedNan, InTheRoutersWeights) {
  inject(OpId::router_weights_forward, 0, "weight_TK", {kToken, 1});
  expect_token_25(find({"forward of micro-batch 1", "router_weights_forward", "weight_TK", "model.layers.0.mlp", 0}));
}

TEST_F(InjectedNan, InHyperConnectionCoefficients) {
  inject(OpId::hc_pre_forward, 3, "comb_TMM", {kToken, 2, 2});
  expect_token_25(find({"forward of micro-batch 1", "hc_pre_forward", "comb_TMM", "model.layers.1.ffn_hc", 1}));
}

TEST_F(InjectedNan, InACompressedEntry) {
  // Layer 1 pools windows of 4: entries 0-3 are of the first document (17 tokens), 4 of the second, 5 the first of the
  // third, which begins at token 22.
  inject(OpId::compress_forward, 0, "v_CH", {5, 2});
  const BadValue bad = find({"forward of micro-batch 1", "compress_forward", "v_CH", "model.layers.1.self_attn", 1});
  ASSERT_TRUE(bad.place);
  EXPECT_EQ(bad.place->token, 22);
  EXPECT_EQ(bad.place->num_tokens, 4);
  EXPECT_EQ(bad.place->document, 2);
  EXPECT_THAT(describe(bad), HasSubstr("tokens 0 to 3 of document 2 in micro-batch 1, sample data.jsonl:12"));
}

TEST_F(InjectedNan, InTheHeadsLogprobs) {
  // Rows of the head are tokens with a target, in chunks of 16: the last tokens of the first two documents have none,
  // so token 25 is row 23, the eighth of the second chunk.
  inject(OpId::logprob_forward, 1, "logp_T", {7});
  expect_token_25(find({"loss of micro-batch 1", "logprob_forward", "logp_T", "lm_head", -1}));
}

TEST_F(InjectedNan, InThePredictionBlock) {
  // Its rows leave out the last token of each document.
  inject(OpId::attention_forward, 3, "o_TNH", {23, 0, 0});
  expect_token_25(find({"loss of micro-batch 1", "attention_forward", "o_TNH", "mtp.0", 3}));
}

TEST_F(InjectedNan, InBackwardOfAttention) {
  // Backward runs the prediction block first, then layers 2, 1, 0.
  inject(OpId::attention_backward, 3, "dq_TNH", {kToken, 0, 0});
  expect_token_25(find({"backward of micro-batch 1", "attention_backward", "dq_TNH", "self_attn", 0}));
}

TEST_F(InjectedNan, InBackwardOfTheExperts) {
  inject(OpId::swiglu_backward, 1, "", {});
  rig_.fault().action = [&](const OpCall& call) {
    set_element(operand_of(call, "dgu_RG"), {rig_.fault().expert_row(kToken), 0}, kNan);
  };
  // The last plan is that of the prediction block, whose row 23 is token 25; its shared expert comes first.
  const BadValue bad = find({"backward of micro-batch 1", "swiglu_backward", "dgu_RG", "mtp.0", 3});
  ASSERT_TRUE(bad.place);
  EXPECT_EQ(bad.place->token, 27);  // row 25 of the block
}

TEST_F(InjectedNan, InTheEmbeddingsGradient) {
  const int32_t id = rig_.data.micro_batches[1].tokens[kToken];
  const auto& tokens = rig_.data.micro_batches[1].tokens;
  inject(OpId::embedding_backward, 1, "dtable_VD", {id, 4});
  const BadValue bad = find(
      {"backward of micro-batch 1", "embedding_backward", "dtable_VD", "gradient of model.embed_tokens.weight", -1});
  EXPECT_EQ(bad.index, (Index{id, 4}));
  EXPECT_EQ(bad.place->token_id, id);
  EXPECT_EQ(bad.place->token, std::find(tokens.begin(), tokens.end(), id) - tokens.begin());
}

TEST_F(InjectedNan, InWhatIsRebuilt) {
  IncidentRig rig(Precision::kBf16, false, model::Recompute::kFull);
  rig.fault().op = OpId::attention_forward, rig.fault().micro_batch = 1;
  rig.fault().nth = 4;  // forward of layers 0, 1, 2; then layer 1 is rebuilt after layer 2's backward, then layer 0
  rig.fault().action = [&](const OpCall& call) { set_element(operand_of(call, "o_TNH"), {kToken, 0, 0}, kNan); };
  const Incident incident = rig.find();
  ASSERT_TRUE(incident.bad);
  EXPECT_EQ(incident.bad->instruction, "backward of micro-batch 1");
  EXPECT_EQ(incident.bad->op, "attention_forward");
  EXPECT_GE(incident.bad->layer, 0);
  expect_token_25(*incident.bad);
}

TEST_F(InjectedNan, BetweenTwoOpsIsFoundWhereItIsRead) {
  // After the first norm wrote its output, a value in what was written before it changes.
  rig_.fault().op = OpId::hc_pre_forward, rig_.fault().micro_batch = 1;
  rig_.fault().action = [&](const OpCall& call) { set_element(operand_of(call, "x_TMD"), {kToken, 1, 0}, kNan); };
  const Incident incident = rig_.find();
  ASSERT_TRUE(incident.bad);
  EXPECT_TRUE(incident.bad->was_read);
  EXPECT_EQ(incident.bad->tensor, "streams");
  EXPECT_EQ(incident.bad->layer, 0);
  expect_token_25(*incident.bad);
}

TEST_F(InjectedNan, OnceIsTransient) {
  inject(OpId::attention_forward, 2, "o_TNH", {kToken, 1, 3});
  rig_.fault().most = 1;
  const Incident incident = rig_.find();
  EXPECT_EQ(incident.judgement.anomaly, Anomaly::kNonFinite);
  EXPECT_TRUE(incident.is_transient);
  EXPECT_FALSE(incident.bad);
  EXPECT_TRUE(std::isfinite(incident.loss_again));
  EXPECT_THAT(describe(incident), HasSubstr("a transient fault"));
}

TEST(DamagedData, IsNamedBySample) {
  for (const float weight : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    IncidentRig rig(Precision::kFp32);
    rig.data.micro_batches[1].weights[kToken] = weight;
    const Incident incident = rig.find();
    ASSERT_TRUE(incident.bad);
    EXPECT_EQ(incident.bad->tensor, "loss weights");
    EXPECT_TRUE(incident.bad->op.empty());
    expect_token_25(*incident.bad);
  }
}

// --- memory that a bit flipped in -----------------------------------------------------------------------------------

TEST(FlippedBit, InABf16WeightIsNamedWithItsBit) {
  IncidentRig rig(Precision::kBf16);
  rig.train(2);
  const layers::Parameter& p = rig.parameter("model.layers.1.mlp.experts.down_proj");
  bf16& value = p.value.data<bf16>()[(2 * 20 + 7) * 8 + 3];  // [E, D, F] = [5, 20, 8]
  value.bits ^= 1 << 14;
  const Incident incident = rig.find(Anomaly::kLossSpike);
  ASSERT_TRUE(incident.bad);
  EXPECT_EQ(incident.bad->tensor, "model.layers.1.mlp.experts.down_proj");
  EXPECT_EQ(incident.bad->index, (Index{2, 7, 3}));
  EXPECT_EQ(incident.bad->value, value);
  EXPECT_THAT(incident.bad->finding, HasSubstr("bit 14 of 16 differs"));
}

TEST(FlippedBit, InAMasterWeightIsNamedAsTheMasters) {
  IncidentRig rig(Precision::kBf16);
  rig.train(2);
  const layers::Parameter& p = rig.parameter("model.layers.2.self_attn.o_b_proj.weight");
  float& master = p.master.data<float>()[5];
  master = std::bit_cast<float>(std::bit_cast<uint32_t>(master) ^ (1u << 30));
  const Incident incident = rig.find(Anomaly::kLossSpike);
  ASSERT_TRUE(incident.bad);
  EXPECT_EQ(incident.bad->tensor, "master of model.layers.2.self_attn.o_b_proj.weight");
  EXPECT_EQ(incident.bad->index, (Index{0, 5}));
  EXPECT_THAT(incident.bad->finding, HasSubstr("bit 14 of 16 differs"));
}

TEST(FlippedBit, InAMomentIsNamed) {
  struct Case {
    View layers::Parameter::*moment;
    int bit;
    std::string name;
  };
  for (const Case& c : {Case{&layers::Parameter::m, 30, "first"}, Case{&layers::Parameter::v, 31, "second"},
                        Case{&layers::Parameter::v, 30, "second"}}) {
    IncidentRig rig(Precision::kFp32);
    rig.train(3);
    const layers::Parameter& p = rig.parameter("model.layers.0.self_attn.q_a_proj.weight");
    float& value = (p.*c.moment).data<float>()[21];
    ASSERT_NE(value, 0);
    value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ (1u << c.bit));
    const Incident incident = rig.find(Anomaly::kLossSpike);
    ASSERT_TRUE(incident.bad) << c.name << " " << c.bit;
    EXPECT_EQ(incident.bad->tensor, c.name + " moment of " + p.name);
    EXPECT_EQ(incident.bad->index, (Index{1, 1}));
  }
}

TEST(FlippedBit, InAWeightWithoutMasterIsAnOutlier) {
  IncidentRig rig(Precision::kFp32);
  rig.train(1);
  const layers::Parameter& p = rig.parameter("model.layers.0.mlp.gate.weight");
  float& value = p.value.data<float>()[3];
  value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ (1u << 30));
  const Incident incident = rig.find(Anomaly::kLossSpike);
  ASSERT_TRUE(incident.bad);
  EXPECT_EQ(incident.bad->tensor, p.name);
  EXPECT_EQ(incident.bad->index, (Index{0, 3}));
}

// --- values out of proportion ---------------------------------------------------------------------------------------

TEST(OutOfProportion, AFiniteFaultIsFoundByTheStepBefore) {
  IncidentRig rig(Precision::kBf16);
  rig.train(3);
  rig.fault().op = OpId::attention_forward, rig.fault().micro_batch = 1, rig.fault().nth = 1;
  rig.fault().action = [&](const OpCall& call) { set_element(operand_of(call, "o_TNH"), {kToken, 1, 3}, 1e4); };
  rig.baseline.micro_batches.resize(1);  // without the micro-batch that the fault is in
  const Incident incident = rig.find(Anomaly::kLossSpike);
  ASSERT_TRUE(incident.bad);
  EXPECT_EQ(incident.bad->op, "attention_forward");
  EXPECT_EQ(incident.bad->layer, 1);
  EXPECT_NEAR(incident.bad->value, 1e4, 100);
  expect_token_25(*incident.bad);
  EXPECT_THAT(incident.bad->finding, HasSubstr("out of proportion"));
}

// Ordinary steps have no bad value, even where memory that counts for nothing holds NaN.
TEST(OrdinarySteps, GiveNoFalseAlarm) {
  for (const auto recompute : {model::Recompute::kNone, model::Recompute::kFull}) {
    for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
      IncidentRig rig(precision, true, recompute);
      for (const Book::Entry& entry : rig.session().book().entries()) {
        if (entry.kind != TensorKind::kScratch && entry.kind != TensorKind::kSaved) continue;
        View view = *entry.view;
        if (view.dtype == DType::kF32) rig.session().ctx().ops.fill(nullptr, view, kNan);
        if (view.dtype == DType::kBF16) rig.session().ctx().ops.fill(nullptr, view, kNan);
      }
      for (int i = 0; i < 3; ++i) {
        rig.train(2 * i + 1);
        const Incident incident = rig.find(Anomaly::kLossSpike);
        EXPECT_FALSE(incident.is_transient);
        EXPECT_FALSE(incident.bad) << describe(*incident.bad);
        EXPECT_GT(incident.statistics.size(), 500u);
      }
    }
  }
}

TEST(OrdinarySteps, AreLeftAsTheyWere) {
  IncidentRig rig(Precision::kBf16, true);
  rig.train(2);
  const auto values = [&] {
    std::vector<std::vector<double>> all;
    for (const layers::Parameter* p : rig.session().model().parameters()) {
      if (!p->trainable) continue;
      for (const View& view : {p->master, p->m, p->v}) all.push_back(testing::to_host(rig.session().ctx(), view));
    }
    return all;
  };
  Step step(rig.parts());
  const StepResult before = step.compute(rig.data.micro_batches, 1e-3);
  const auto values_before = values();
  rig.find(Anomaly::kLossSpike);
  EXPECT_EQ(values(), values_before);
  const StepResult after = step.compute(rig.data.micro_batches, 1e-3);
  EXPECT_EQ(after.loss, before.loss);
  EXPECT_EQ(after.norms.global, before.norms.global);
}

}  // namespace
}  // namespace temper::train
