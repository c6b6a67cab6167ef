// The hand-written backward of every layer against central differences of its forward, in float64.
#include "attention_rig.h"
#include "layers/hyper_connection.h"
#include "layers/lm_head.h"
#include "layers/moe.h"
#include "layers/rmsnorm.h"

namespace temper::layers {
namespace {

// Two documents of 13 and 16 tokens and one of a single token: tails, borders, a document without entries.
const MicroBatch& batch() {
  static const MicroBatch instance = [] {
    MicroBatch b;
    for (int32_t t = 0; t < 30; ++t) b.tokens.push_back((7 * t * t + 3 * t + 5) % 11);
    b.cu_seqlens = {0, 13, 29, 30};
    return b;
  }();
  return instance;
}
constexpr int64_t kT = 30;

void check_parameters(LayerRig& rig, const ParameterList& list, const std::function<double()>& loss) {
  for (Parameter* p : list)
    if (p->trainable) rig.expect_gradient(p->name, p->value, p->grad, loss);
}

// Gradient of 1.5 * the indexer's loss by its parameters; add(loss_1) accumulates both. The other parameters and the
// layer's input get none.
void check_indexer(LayerRig& rig, Ctx ctx, const ParameterList& list, View loss_1,
                   const std::function<void(View)>& add) {
  const auto evaluate = [&] {
    ctx.ops.fill(ctx.stream, loss_1, 0);
    for (const Parameter* p : list) ctx.ops.fill(ctx.stream, p->grad, 0);
    add(loss_1);
    return 1.5 * loss_1.data<double>()[0];
  };
  for (const Parameter* p : list) {
    const double loss = evaluate();
    EXPECT_GT(loss, 0.01);
    if (p->name.find("indexer") != std::string::npos)
      rig.expect_gradient(p->name, p->value, p->grad, evaluate);
    else
      EXPECT_EQ(dot(p->grad, p->grad), 0) << p->name;
  }
}

void check_attention(AttentionDims dims, EntryUse use = EntryUse::kBest) {
  AttentionRig rig(dims, kT, {kT}, {kT, kT, kT});
  Ctx ctx = rig.ctx();
  rig.randomize(rig.h, 1), rig.randomize(rig.dy, 1);
  const auto now = rig.begin(ctx, batch(), rig.whole_layout(batch()));
  ChoiceRule rule;
  const auto loss = [&] {
    rig.attention.forward(ctx, rig.y, rig.h, now, rig.selected, rule, use, rig.layout, rig.rotary);
    return dot(rig.y, rig.dy);
  };
  loss();
  rule.read = true;  // a small step must not change the selection under our feet
  rig.attention.backward(ctx, rig.dh, rig.dy, rig.h, now, rig.selected, use, rig.layout, rig.rotary);
  rig.expect_gradient("h", rig.h, rig.dh, loss);
  ParameterList without_indexer;
  for (Parameter* p : rig.list)
    if (p->name.find("indexer") == std::string::npos) without_indexer.push_back(p);
  check_parameters(rig, without_indexer, loss);
  if (!dims.csa) return;
  check_indexer(rig, ctx, rig.list, rig.loss_1, [&](View loss) {
    rig.attention.backward_indexer(ctx, loss, rig.h, now, rig.selected, use, 1.5, rig.layout, rig.rotary);
  });
}

TEST(LayerGradient, SlidingAttention) { check_attention(attention_dims(0, false)); }
TEST(LayerGradient, CompressedSparseAttention) { check_attention(attention_dims(4, true)); }
TEST(LayerGradient, CompressedSparseAttentionOfAnotherRate) { check_attention(attention_dims(3, true)); }
TEST(LayerGradient, AttentionToEveryEntryAndItsIndexer) { check_attention(attention_dims(4, true), EntryUse::kAll); }
TEST(LayerGradient, HeavilyCompressedAttention) { check_attention(attention_dims(5, false)); }

// sum_e F_e P_e of page 6.3, written from its definition.
double balance_sum(const MoeDims& dims, View z_TE, View expert_TK) {
  if (dims.hash) return 0;
  const int64_t T = z_TE.dim(0), E = dims.E, K = dims.K;
  std::vector<double> count(E), share(E);
  for (int64_t i = 0; i < T * K; ++i) count[expert_TK.data<int32_t>()[i]] += 1;
  for (int64_t t = 0; t < T; ++t) {
    std::vector<double> score(E);
    double total = 0;
    for (int64_t e = 0; e < E; ++e) total += score[e] = std::sqrt(std::log1p(std::exp(z_TE.data<double>()[t * E + e])));
    for (int64_t e = 0; e < E; ++e) share[e] += score[e] / total;
  }
  double sum = 0;
  for (int64_t e = 0; e < E; ++e) sum += static_cast<double>(E) / (K * T) * count[e] * share[e] / T;
  return sum;
}

void check_moe(bool hash, double coefficient) {
  LayerRig rig;
  rig.step = 2e-7;  // about a thousand values stand around the clamp's bounds
  const MoeDims dims{.D = 9, .F = 7, .E = 5, .K = 2, .V = 11, .hash = hash, .scaling = 1.5, .swiglu_limit = 0.8};
  Moe moe("m.", dims, LayerRig::kDtypes);
  Moe::Saved saved;
  ParameterList list;
  View h_TD, y_TD, dy_TD, dh_TD, expert_TK, token_T, balance_1;
  moe.collect(list);
  rig.declare_parameters(list);
  moe.declare_saved(rig.book, saved, kT);
  moe.declare_scratch(rig.book, kT, true);
  for (View* view : {&h_TD, &y_TD, &dy_TD, &dh_TD}) rig.declare(*view, {kT, dims.D});
  rig.declare_index(expert_TK, {kT, dims.K});
  rig.declare_index(token_T, {kT});
  rig.declare(balance_1, {1});
  rig.grant(list);
  Ctx ctx = rig.ctx();
  ctx.device.copy_to_device(ctx.stream, token_T, batch().tokens.data());
  for (Parameter* p : list) {
    if (p->dtype != DType::kI64) continue;
    for (int64_t v = 0; v < dims.V; ++v)
      for (int64_t k = 0; k < dims.K; ++k) p->value.data<int64_t>()[v * dims.K + k] = (v + 2 * k) % dims.E;
  }
  rig.randomize(h_TD, 1), rig.randomize(dy_TD, 1);

  const auto now = moe.first(saved, kT);
  ChoiceRule rule;
  const auto loss = [&] {
    moe.forward(ctx, y_TD, h_TD, token_T, now, expert_TK, rule);
    return dot(y_TD, dy_TD) + coefficient * balance_sum(dims, now.z_TE, expert_TK);
  };
  loss();
  rule.read = true;
  moe.backward(ctx, dh_TD, dy_TD, h_TD, now, expert_TK, {coefficient, balance_1, kT});
  if (coefficient > 0) {
    EXPECT_NEAR(balance_1.data<double>()[0], balance_sum(dims, now.z_TE, expert_TK), 1e-12);
  }
  rig.expect_gradient("h", h_TD, dh_TD, loss);
  check_parameters(rig, list, loss);
}

TEST(LayerGradient, ScoreRoutedExperts) { check_moe(false, 0); }
TEST(LayerGradient, ScoreRoutedExpertsWithBalanceLoss) { check_moe(false, 2.5); }
TEST(LayerGradient, HashRoutedExperts) { check_moe(true, 0); }

TEST(LayerGradient, HyperConnection) {
  LayerRig rig;
  const HyperDims dims{4, 6, 20, 1e-6, 1e-6};
  HyperConnection hyper("hc.", dims, false, LayerRig::kDtypes);
  HyperConnection::Saved saved;
  ParameterList list;
  // The block is y = 2 u + 1 elementwise, so that gradients pass through u as well.
  View x_TMD, xo_TMD, dx_TMD, weight_TMD, u_TD, y_TD, dy_TD, one_TD;
  hyper.collect(list);
  rig.declare_parameters(list);
  hyper.declare_saved(rig.book, saved, kT);
  hyper.declare_scratch(rig.book, kT);
  for (View* view : {&x_TMD, &xo_TMD, &dx_TMD, &weight_TMD}) rig.declare(*view, {kT, dims.M, dims.D});
  for (View* view : {&u_TD, &y_TD, &dy_TD, &one_TD}) rig.declare(*view, {kT, dims.D});
  rig.grant(list);
  Ctx ctx = rig.ctx();
  rig.randomize(x_TMD, 1), rig.randomize(weight_TMD, 1);
  ctx.ops.fill(ctx.stream, one_TD, 1);
  const auto loss = [&] {
    hyper.pre(ctx, u_TD, x_TMD, saved);
    ctx.ops.copy(ctx.stream, y_TD, one_TD);
    ctx.ops.add(ctx.stream, y_TD, u_TD, 2);
    hyper.post(ctx, xo_TMD, x_TMD, y_TD, saved);
    return dot(xo_TMD, weight_TMD);
  };
  loss();
  ctx.ops.copy(ctx.stream, dx_TMD, weight_TMD);
  hyper.backward_post(ctx, dy_TD, dx_TMD, x_TMD, y_TD, saved);
  ctx.ops.add(ctx.stream, dy_TD, dy_TD, 1);  // du = 2 dy
  hyper.backward_pre(ctx, dx_TMD, dy_TD, x_TMD, saved);
  rig.expect_gradient("x", x_TMD, dx_TMD, loss);
  check_parameters(rig, list, loss);
}

TEST(LayerGradient, HyperHead) {
  LayerRig rig;
  const HyperDims dims{4, 6, 20, 1e-6, 1e-6};
  HyperConnection head("h.", dims, true, LayerRig::kDtypes);
  HyperConnection::Saved saved;
  ParameterList list;
  View x_TMD, dx_TMD, v_TD, dv_TD;
  head.collect(list);
  rig.declare_parameters(list);
  head.declare_saved(rig.book, saved, kT);
  head.declare_scratch(rig.book, kT);
  rig.declare(x_TMD, {kT, dims.M, dims.D}), rig.declare(dx_TMD, {kT, dims.M, dims.D});
  rig.declare(v_TD, {kT, dims.D}), rig.declare(dv_TD, {kT, dims.D});
  rig.grant(list);
  Ctx ctx = rig.ctx();
  rig.randomize(x_TMD, 1), rig.randomize(dv_TD, 1);
  const auto loss = [&] {
    head.pre(ctx, v_TD, x_TMD, saved);
    return dot(v_TD, dv_TD);
  };
  loss();
  head.backward_pre(ctx, dx_TMD, dv_TD, x_TMD, saved);
  rig.expect_gradient("x", x_TMD, dx_TMD, loss);
  check_parameters(rig, list, loss);
}

TEST(LayerGradient, LmHeadByChunks) {
  LayerRig rig;
  constexpr int64_t kV = 11, kD = 6;
  LmHead head(kV, kD, 7, LayerRig::kDtypes);  // chunks of 7 tokens
  ParameterList list;
  View y_TD, dy_TD;
  head.collect(list);
  rig.declare_parameters(list);
  LmHead::Saved saved;
  head.declare_saved(rig.book, saved, "head", kT);
  head.declare_scratch(rig.book, kT, true);
  rig.declare(y_TD, {kT, kD}), rig.declare(dy_TD, {kT, kD});
  rig.grant(list);
  Ctx ctx = rig.ctx();
  rig.randomize(y_TD, 1);
  std::vector<int32_t> targets(kT);
  std::vector<double> g(kT), logp;
  std::vector<int32_t> best;
  for (int64_t t = 0; t < kT; ++t) {
    targets[t] = t % 4 == 3 ? -1 : batch().tokens[t];
    g[t] = targets[t] < 0 ? 0 : 0.1 + 0.01 * t;
  }
  const auto loss = [&] {
    head.logprobs(ctx, y_TD, targets, saved, logp, best);
    double sum = 0;
    for (int64_t t = 0; t < kT; ++t) sum += g[t] * logp[t];
    return sum;
  };
  loss();
  head.backward(ctx, dy_TD, y_TD, g, saved);
  rig.expect_gradient("y", y_TD, dy_TD, loss);
  check_parameters(rig, list, loss);
  EXPECT_EQ(best[3], -1);
}

TEST(LayerGradient, LmHeadWithKnownWeightsIsTheSame) {
  LayerRig rig;
  constexpr int64_t kV = 11, kD = 6;
  LmHead head(kV, kD, 7, LayerRig::kDtypes);
  ParameterList list;
  View y_TD, dy_TD, known_dy_TD;
  head.collect(list);
  rig.declare_parameters(list);
  LmHead::Saved saved;
  head.declare_saved(rig.book, saved, "head", kT);
  head.declare_scratch(rig.book, kT, true);
  for (View* view : {&y_TD, &dy_TD, &known_dy_TD}) rig.declare(*view, {kT, kD});
  rig.grant(list);
  Ctx ctx = rig.ctx();
  rig.randomize(y_TD, 1), rig.randomize(dy_TD, 1), rig.randomize(known_dy_TD, 1);  // what was there is overwritten
  std::vector<int32_t> targets(kT), best;
  std::vector<double> g(kT), logp, known_logp;
  for (int64_t t = 0; t < kT; ++t) {
    targets[t] = t % 4 == 3 ? -1 : batch().tokens[t];
    g[t] = targets[t] < 0 ? 0 : 0.1 + 0.01 * t;
  }
  head.logprobs(ctx, y_TD, targets, saved, logp, best);
  head.backward(ctx, dy_TD, y_TD, g, saved);
  const auto gradient = to_vector(list[0]->grad);
  ctx.ops.fill(ctx.stream, list[0]->grad, 0);
  head.logprobs(ctx, y_TD, targets, saved, known_logp, best, {g, known_dy_TD});
  head.backward(ctx, known_dy_TD, y_TD, g, saved);  // adds nothing
  EXPECT_EQ(known_logp, logp);
  EXPECT_EQ(to_vector(known_dy_TD), to_vector(dy_TD));
  EXPECT_EQ(to_vector(list[0]->grad), gradient);
}

TEST(LayerGradient, RmsNorm) {
  LayerRig rig;
  RmsNorm norm{fine_parameter("w", {8}, LayerRig::kDtypes, Init::kOnes), 1e-6};
  View x_TD, y_TD, dy_TD, dx_TD, rstd_T;
  const ParameterList list = {&norm.w};
  rig.declare_parameters(list);
  for (View* view : {&x_TD, &y_TD, &dy_TD, &dx_TD}) rig.declare(*view, {5, 8});
  rig.declare(rstd_T, {5});
  rig.grant(list);
  Ctx ctx = rig.ctx();
  rig.randomize(x_TD, 1), rig.randomize(dy_TD, 1);
  const auto loss = [&] {
    norm.forward(ctx, y_TD, rstd_T, x_TD);
    return dot(y_TD, dy_TD);
  };
  loss();
  norm.backward(ctx, dx_TD, dy_TD, x_TD, rstd_T);
  rig.expect_gradient("x", x_TD, dx_TD, loss);
  check_parameters(rig, list, loss);
}

}  // namespace
}  // namespace temper::layers
