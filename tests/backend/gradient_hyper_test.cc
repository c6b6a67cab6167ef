// Hyper-connections: gradients, and the facts of architecture page 3 that a wrong implementation would survive training
// with.
#include <gtest/gtest.h>

#include "backend/gradient.h"

namespace temper::backend::test {
namespace {

const OpTable& ops = cpu_reference().ops;
constexpr int64_t kIters = 20;
constexpr double kEps = 1e-6;

struct Site {
  int64_t T, M, D;
  bool head;
  int64_t Y = head ? M : (2 + M) * M, G = head ? 1 : 3;
  Tensor x = Tensor::random({T, M, D}, 1), fn = Tensor::random({Y, M*D}, 2, 0.4), base = Tensor::random({Y}, 3, 0.5);
  Tensor scale = Tensor::random({G}, 4), u{{T, D}}, post{{T, M}}, comb{{T, M, M}}, mix{{T, Y}}, rstd{{T}};

  void forward() {
    ops.hc_pre_forward(nullptr, u.view(), head ? View() : post.view(), head ? View() : comb.view(), mix.view(),
                       rstd.view(), x.view(), fn.view(), base.view(), scale.view(), kIters, kEps, kEps);
  }
};

TEST(GradientHyper, Pre) {
  for (const bool head : {false, true})
    for (const int64_t M : {2, 4}) {
      SCOPED_TRACE(testing::Message() << "head " << head << ", streams " << M);
      Site s{3, M, 5, head};
      Tensor du = Tensor::random({s.T, s.D}, 5), dpost = Tensor::random({s.T, M}, 6),
             dcomb = Tensor::random({s.T, M, M}, 7);
      const auto loss = [&] {
        s.forward();
        return dot(s.u, du) + (head ? 0 : dot(s.post, dpost) + dot(s.comb, dcomb));
      };
      loss();
      Tensor dx({s.T, M, s.D}), dfn(s.fn.shape()), dbase({s.Y}), dscale({s.G});
      ops.hc_pre_backward(nullptr, dx.view(), dfn.view(), dbase.view(), dscale.view(), du.view(),
                          head ? View() : dpost.view(), head ? View() : dcomb.view(), s.x.view(), s.mix.view(),
                          s.rstd.view(), s.fn.view(), s.base.view(), s.scale.view(), kIters, kEps);
      expect_gradient("x", s.x, dx, loss);
      expect_gradient("fn", s.fn, dfn, loss);
      expect_gradient("base", s.base, dbase, loss);
      expect_gradient("scale", s.scale, dscale, loss);
    }
}

TEST(GradientHyper, Post) {
  const int64_t T = 3, M = 4, D = 5;
  Tensor x = Tensor::random({T, M, D}, 1), y = Tensor::random({T, D}, 2), post = Tensor::random({T, M}, 3);
  Tensor comb = Tensor::random({T, M, M}, 4), dxo = Tensor::random({T, M, D}, 5), xo({T, M, D});
  Tensor dy({T, D}), dx({T, M, D}), dpost({T, M}), dcomb({T, M, M});
  const auto loss = [&] {
    ops.hc_post_forward(nullptr, xo.view(), x.view(), y.view(), post.view(), comb.view());
    return dot(xo, dxo);
  };
  ops.hc_post_backward(nullptr, dy.view(), dx.view(), dpost.view(), dcomb.view(), dxo.view(), x.view(), y.view(),
                       post.view(), comb.view());
  expect_gradient("x", x, dx, loss);
  expect_gradient("y", y, dy, loss);
  expect_gradient("post", post, dpost, loss);
  expect_gradient("comb", comb, dcomb, loss);
}

TEST(Hyper, NeutralParametersGiveNeutralCoefficients) {
  Site s{2, 4, 3, false};
  for (size_t i = 0; i < s.fn.size(); ++i) s.fn[i] = 0;
  for (size_t i = 0; i < s.base.size(); ++i) s.base[i] = 0;
  s.forward();
  for (size_t t = 0; t < 2; ++t)
    for (size_t d = 0; d < 3; ++d) {
      double streams = 0;
      for (size_t i = 0; i < 4; ++i) streams += s.x[(t * 4 + i) * 3 + d];
      EXPECT_NEAR(s.u[t * 3 + d], (0.5 + kEps) * streams, 1e-15);
    }
  for (size_t i = 0; i < s.post.size(); ++i) EXPECT_DOUBLE_EQ(s.post[i], 1);
  for (size_t i = 0; i < s.comb.size(); ++i) EXPECT_NEAR(s.comb[i], 0.25, 1e-6);
}

// The last Sinkhorn step is a column step: columns sum to S / (S + eps), rows only nearly so.
TEST(Hyper, ColumnsOfCombSumToOne) {
  Site s{2, 4, 3, false};
  s.forward();
  for (size_t t = 0; t < 2; ++t)
    for (size_t k = 0; k < 4; ++k) {
      double sum = 0;
      for (size_t j = 0; j < 4; ++j) sum += s.comb[t * 16 + j * 4 + k];
      EXPECT_NEAR(sum, 1 / (1 + kEps), 1e-7);
    }
}

TEST(Hyper, CombIsSummedOverItsFirstIndex) {
  Tensor x = Tensor::of({1, 2, 1}, {10, 1}), y = Tensor::of({1, 1}, {0}), post = Tensor::of({1, 2}, {1, 1});
  Tensor comb = Tensor::of({1, 2, 2}, {0, 3, 0, 0}), xo({1, 2, 1});  // C_01 = 3: stream 0 goes to stream 1
  ops.hc_post_forward(nullptr, xo.view(), x.view(), y.view(), post.view(), comb.view());
  EXPECT_EQ(xo[0], 0);
  EXPECT_EQ(xo[1], 30);
}

}  // namespace
}  // namespace temper::backend::test
