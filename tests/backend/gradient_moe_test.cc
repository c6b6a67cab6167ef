// Router, dispatch and combination.
#include <gtest/gtest.h>

#include <cmath>

#include "backend/gradient.h"

namespace temper::backend::test {
namespace {

const OpTable& ops = cpu_reference().ops;

void backward(Tensor& dz, Tensor& dweight, Tensor& weight, Tensor& z, Indices& index, double scaling) {
  ops.router_weights_backward(nullptr, dz.view(), dweight.view(), weight.view(), z.view(), index.view(), scaling,
                              View(), 0, View(), 0);
}

TEST(GradientMoe, RouterWeights) {
  const int64_t T = 3, K = 2, E = 5;
  Tensor z = Tensor::random({T, E}, 1, 2), dweight = Tensor::random({T, K}, 2), weight({T, K}), dz({T, E});
  z[0] = 25;    // softplus is the identity
  z[7] = -3.5;  // of little weight
  Indices index({T, K}, {0, 3, 1, 2, 4, 0});
  const auto loss = [&] {
    ops.router_weights_forward(nullptr, weight.view(), z.view(), index.view(), 1.5);
    return dot(weight, dweight);
  };
  loss();
  backward(dz, dweight, weight, z, index, 1.5);
  expect_gradient("z", z, dz, loss);
  EXPECT_EQ(dz[1], 0);  // not chosen
}

TEST(GradientMoe, RouterWeightsAndBalance) {
  const int64_t T = 4, K = 2, E = 5;
  const double balance = 0.7;
  Tensor z = Tensor::random({T, E}, 1, 2), dweight = Tensor::random({T, K}, 2), weight({T, K}), dz({T, E});
  z[0] = 25;
  z[7] = -3.5;
  Indices index({T, K}, {0, 3, 1, 3, 4, 3, 0, 2});
  Indices load({E}, {3, 4, 1, 5, 7});  // of 10 tokens, these among them
  Tensor term({1}), unused({T, E});
  const auto loss = [&] {
    ops.router_weights_forward(nullptr, weight.view(), z.view(), index.view(), 1.5);
    term[0] = 0;
    ops.router_weights_backward(nullptr, unused.view(), dweight.view(), weight.view(), z.view(), index.view(), 1.5,
                                term.view(), balance, load.view(), 10);
    return dot(weight, dweight) + balance * term[0];
  };
  loss();
  ops.router_weights_backward(nullptr, dz.view(), dweight.view(), weight.view(), z.view(), index.view(), 1.5, View(),
                              balance, load.view(), 10);
  expect_gradient("z", z, dz, loss);
}

// Two tokens with scores in the ratio 3 : 1 that both choose expert 0: F = (2, 0), P = (3/4, 1/4), L = 3/2. With one
// token for each expert F = (1, 1) and L = 1, whatever the scores.
TEST(Moe, BalanceLossIsOneWhereLoadsAreEven) {
  const auto logit = [](double score) { return std::log(std::expm1(score * score)); };
  Tensor z = Tensor::of({2, 2}, {logit(1.5), logit(0.5), logit(3), logit(1)}), weight({2, 1}), dz({2, 2});
  Tensor loss = Tensor::of({1}, {10});
  Indices both({2, 1}, {0, 0}), even({2, 1}, {0, 1}), both_load({2}, {2, 0}), even_load({2}, {1, 1});
  ops.router_weights_backward(nullptr, dz.view(), weight.view(), weight.view(), z.view(), both.view(), 1, loss.view(),
                              1e-4, both_load.view(), 2);
  EXPECT_NEAR(loss[0], 11.5, 1e-12);
  ops.router_weights_backward(nullptr, dz.view(), weight.view(), weight.view(), z.view(), even.view(), 1, loss.view(),
                              1e-4, even_load.view(), 2);
  EXPECT_NEAR(loss[0], 12.5, 1e-12);
}

TEST(Moe, LoadsMoveTheBiasTowardsTheMean) {
  Indices index({3, 2}, {0, 1, 0, 1, 0, 2});
  std::vector<int32_t> load(4);
  ops.expert_load(nullptr, View(load.data(), DType::kI32, {4}), index.view());
  EXPECT_EQ(load, (std::vector<int32_t>{3, 2, 1, 0}));
  load[3] = 2;  // mean 2
  Tensor bias = Tensor::of({4}, {1, 1, 1, 1});
  ops.router_bias_update(nullptr, bias.view(), View(load.data(), DType::kI32, {4}), 0.25);
  EXPECT_EQ(std::vector<double>({bias[0], bias[1], bias[2], bias[3]}), std::vector<double>({0.75, 1, 1.25, 1}));
}

// Far below zero sigmoid(z) and s both underflow; the slope is s / 2 and nothing is 0/0. With both experts equal the
// weights are scaling / 2, and dw_0 = 1 gives ds_0 = scaling / (4 s): dz_0 = scaling / 8 at any depth.
TEST(GradientMoe, RouterUnderflowHasAFiniteSlope) {
  for (const double depth : {-5.0, -39.0, -41.0, -60.0}) {
    Tensor z = Tensor::of({1, 2}, {depth, depth}), dweight = Tensor::of({1, 2}, {1, 0}), weight({1, 2}), dz({1, 2});
    Indices index({1, 2}, {0, 1});
    ops.router_weights_forward(nullptr, weight.view(), z.view(), index.view(), 2);
    backward(dz, dweight, weight, z, index, 2);
    EXPECT_NEAR(weight[0], 1, 1e-6) << depth;
    EXPECT_NEAR(dz[0], 0.25, depth < -20 ? 1e-6 : 2e-3) << depth;
    EXPECT_NEAR(dz[1], -0.25, depth < -20 ? 1e-6 : 2e-3) << depth;
  }
  Tensor z = Tensor::of({1, 2}, {-2000, -2000}), dweight = Tensor::of({1, 2}, {1, 0}), weight({1, 2}), dz({1, 2});
  Indices index({1, 2}, {0, 1});
  ops.router_weights_forward(nullptr, weight.view(), z.view(), index.view(), 2);
  backward(dz, dweight, weight, z, index, 2);
  EXPECT_TRUE(std::isfinite(weight[0]) && std::isfinite(dz[0])) << weight[0] << " " << dz[0];
}

TEST(Moe, RouterChoosesByScorePlusBiasAndBreaksTiesDownwards) {
  Tensor z = Tensor::of({3, 4}, {0, 1, 2, 3, 1, 1, 1, 1, 3, 0, 0, 2}), bias = Tensor::of({4}, {0, 0, 0, 0});
  std::vector<int32_t> index(6);
  const View index_TK(index.data(), DType::kI32, {3, 2});
  ops.router_topk(nullptr, index_TK, z.view(), bias.view());
  EXPECT_EQ(index, (std::vector<int32_t>{2, 3, 0, 1, 0, 3}));
  bias[0] = 10;
  ops.router_topk(nullptr, index_TK, z.view(), bias.view());
  EXPECT_EQ(index, (std::vector<int32_t>{0, 3, 0, 1, 0, 3}));
}

TEST(GradientMoe, CombineOfDispatchedRows) {
  const int64_t T = 4, K = 2, E = 3, D = 3, alignment = 4, R = T * K + E * (alignment - 1);
  Indices index({T, K}, {2, 0, 0, 2, 2, 0, 0, 2});  // expert 1 gets nothing
  std::vector<int32_t> offset(E + 1), row_token(R), row_slot(R), slot_row(T * K);
  const View slot_row_TK(slot_row.data(), DType::kI32, {T, K}), row_token_R(row_token.data(), DType::kI32, {R});
  ops.dispatch_plan(nullptr, View(offset.data(), DType::kI32, {E + 1}), row_token_R,
                    View(row_slot.data(), DType::kI32, {R}), slot_row_TK, index.view(), alignment);
  EXPECT_EQ(offset, (std::vector<int32_t>{0, 4, 4, 8}));
  EXPECT_EQ(std::vector<int32_t>(row_slot.begin(), row_slot.begin() + 9),
            (std::vector<int32_t>{1, 2, 5, 6, 0, 3, 4, 7, -1}));

  Tensor x = Tensor::random({T, D}, 1), base = Tensor::random({T, D}, 2), dy = Tensor::random({T, D}, 3), rows({R, D}),
         y({T, D});
  const auto loss = [&] {
    ops.gather_rows(nullptr, rows.view(), x.view(), row_token_R);
    ops.combine(nullptr, y.view(), rows.view(), slot_row_TK, base.view());
    return dot(y, dy);
  };
  Tensor drows({R, D}), dx({T, D});
  ops.gather_rows(nullptr, drows.view(), dy.view(), row_token_R);
  ops.scatter_add_rows(nullptr, dx.view(), drows.view(), row_token_R);
  expect_gradient("x", x, dx, loss);
  expect_gradient("base", base, dy, loss);
  for (int64_t d = 0; d < D; ++d) EXPECT_EQ(rows[static_cast<size_t>(8 * D + d)], 0);  // a row of padding
}

}  // namespace
}  // namespace temper::backend::test
