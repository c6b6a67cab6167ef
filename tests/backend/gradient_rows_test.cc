// Gradients of products, norms, rotation, gates, embedding, loss and movement.
#include <gtest/gtest.h>

#include <cmath>

#include "backend/gradient.h"

namespace temper::backend::test {
namespace {

const OpTable& ops = cpu_reference().ops;

TEST(GradientRows, RmsNorm) {
  for (const bool weighted : {false, true}) {
    const int64_t R = 3, D = 7;
    Tensor x = Tensor::random({R, D}, 1), w = Tensor::random({D}, 2), dy = Tensor::random({R, D}, 3);
    Tensor y({R, D}), rstd({R}), dx({R, D}), dw = Tensor::random({D}, 4);
    const Tensor dw_before = dw;
    const View w_D = weighted ? w.view() : View();
    const auto loss = [&] {
      ops.rmsnorm_forward(nullptr, y.view(), rstd.view(), x.view(), w_D, 1e-2);
      return dot(y, dy);
    };
    loss();
    ops.rmsnorm_backward(nullptr, dx.view(), weighted ? dw.view() : View(), dy.view(), x.view(), rstd.view(), w_D);
    expect_gradient("x", x, dx, loss);
    if (!weighted) continue;
    for (size_t i = 0; i < dw.size(); ++i) dw[i] -= dw_before[i];  // dw is accumulated into
    expect_gradient("w", w, dw, loss);
  }
}

TEST(GradientRows, RopeIsUndoneByTheOtherSign) {
  const int64_t T = 3, N = 2, H = 7, P = 2;
  Tensor table({4, P, 2});
  for (size_t i = 0; i < table.size(); i += 2)
    table[i] = std::cos(1.0 + static_cast<double>(i)), table[i + 1] = std::sin(1.0 + static_cast<double>(i));
  Tensor x = Tensor::random({T, N, H}, 1), dy = Tensor::random({T, N, H}, 2), y({T, N, H}), dx({T, N, H});
  Indices position = Indices::of<int>({0, 3, 1});
  const auto loss = [&] {
    ops.rope(nullptr, y.view(), x.view(), table.view(), position.view(), 1);
    return dot(y, dy);
  };
  ops.rope(nullptr, dx.view(), dy.view(), table.view(), position.view(), -1);
  expect_gradient("x", x, dx, loss);
  loss();
  EXPECT_EQ(y[0], x[0]);  // position 0 of angle 1 rotates the last four channels only
  EXPECT_NE(y[6], x[6]);
}

// Values at least 0.05 away from the clamp, where the function has kinks; what happens there is tested apart.
TEST(GradientRows, SwiGlu) {
  const int64_t R = 4, F = 5;
  const double limit = 1;
  for (const bool weighted : {false, true}) {
    Tensor gu = Tensor::random({R, 2 * F}, 1, 1.5), w = Tensor::random({R}, 2), da = Tensor::random({R, F}, 3);
    for (size_t i = 0; i < gu.size(); ++i)
      if (std::abs(std::abs(gu[i]) - limit) < 0.05) gu[i] *= 1.2;
    Tensor a({R, F}), again({R, F}), dgu({R, 2 * F}), dw({R});
    const View w_R = weighted ? w.view() : View();
    const auto loss = [&] {
      ops.swiglu_forward(nullptr, a.view(), gu.view(), w_R, limit);
      return dot(a, da);
    };
    loss();
    ops.swiglu_backward(nullptr, dgu.view(), weighted ? dw.view() : View(), again.view(), da.view(), gu.view(), w_R,
                        limit);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_DOUBLE_EQ(a[i], again[i]);
    expect_gradient("gu", gu, dgu, loss);
    if (weighted) expect_gradient("w", w, dw, loss);
  }
}

TEST(GradientRows, SwiGluPassesGradientsAtTheBoundsOnly) {
  const double limit = 2, past = 2.5;
  Tensor gu = Tensor::of({5, 2}, {limit, 1, past, 1, 1, limit, 1, -limit, -past, -past});
  Tensor da = Tensor::of({5, 1}, {1, 1, 1, 1, 1}), dgu({5, 2}), a({5, 1});
  ops.swiglu_backward(nullptr, dgu.view(), View(), a.view(), da.view(), gu.view(), View(), limit);
  EXPECT_NE(dgu[0], 0);  // gate at its bound
  EXPECT_EQ(dgu[2], 0);  // gate past it
  EXPECT_NE(dgu[5], 0);  // up at +limit
  EXPECT_NE(dgu[7], 0);  // up at -limit
  EXPECT_NE(dgu[8], 0);  // the gate has no lower bound
  EXPECT_EQ(dgu[9], 0);  // up past -limit
}

TEST(GradientRows, Embedding) {
  const int64_t T = 4, M = 2, D = 3, V = 5;
  Tensor table = Tensor::random({V, D}, 1), dx = Tensor::random({T, M, D}, 2), x({T, M, D}), dtable({V, D});
  Indices token = Indices::of<int>({3, 0, 3, 4});
  const auto loss = [&] {
    ops.embedding_forward(nullptr, x.view(), table.view(), token.view());
    return dot(x, dx);
  };
  ops.embedding_backward(nullptr, dtable.view(), dx.view(), token.view());
  expect_gradient("table", table, dtable, loss);
}

TEST(GradientRows, LogProb) {
  const int64_t T = 4, V = 6;
  Tensor logits = Tensor::random({T, V}, 1, 2), g = Tensor::of({T}, {0.5, 0, -1.5, 1}), logp({T}), lse({T}),
         dlogits({T, V});
  Indices target = Indices::of<int>({2, -1, 5, 0});
  const auto loss = [&] {
    ops.logprob_forward(nullptr, logp.view(), lse.view(), View(), logits.view(), target.view());
    return dot(logp, g);
  };
  loss();
  EXPECT_EQ(logp[1], 0);
  ops.logprob_backward(nullptr, dlogits.view(), logits.view(), lse.view(), target.view(), g.view());
  expect_gradient("logits", logits, dlogits, loss);
}

TEST(GradientRows, MatmulByItsOwnTransposes) {
  const int64_t T = 3, I = 4, O = 5;  // y = x wT
  Tensor x = Tensor::random({T, I}, 1), w = Tensor::random({O, I}, 2), dy = Tensor::random({T, O}, 3);
  Tensor y({T, O}), dx({T, I}), dw({O, I});
  const auto loss = [&] {
    ops.matmul(nullptr, y.view(), x.view(), w.view().t(), 0);
    return dot(y, dy);
  };
  ops.matmul(nullptr, dx.view(), dy.view(), w.view(), 0);
  ops.matmul(nullptr, dw.view(), dy.view().t(), x.view(), 1);
  expect_gradient("x", x, dx, loss);
  expect_gradient("w", w, dw, loss);
}

TEST(GradientRows, GroupedMatmulWithAnExpertWithoutRows) {
  const int64_t R = 6, K = 3, N = 4, E = 3;
  Indices offset = Indices::of<int>({0, 2, 2, 5});  // row 5 belongs to nobody
  Tensor x = Tensor::random({R, K}, 1), w = Tensor::random({E, N, K}, 2), dy = Tensor::random({R, N}, 3);
  Tensor y({R, N}), dx({R, K}), dw({E, N, K});
  const auto loss = [&] {
    ops.grouped_matmul(nullptr, y.view(), x.view(), w.view().t(), offset.view());
    return dot(y, dy);
  };
  ops.grouped_matmul(nullptr, dx.view(), dy.view(), w.view(), offset.view());
  ops.grouped_matmul_dw(nullptr, dw.view(), dy.view(), x.view(), offset.view(), 1);
  expect_gradient("x", x, dx, loss);
  expect_gradient("w", w, dw, loss);
}

TEST(GradientRows, GatherAndScatterAreAdjoint) {
  Tensor x = Tensor::random({4, 3}, 1), dy = Tensor::random({5, 3}, 2), y({5, 3}), dx({4, 3});
  Indices index = Indices::of<int>({2, -1, 0, 2, 3});
  const auto loss = [&] {
    ops.gather_rows(nullptr, y.view(), x.view(), index.view());
    return dot(y, dy);
  };
  ops.scatter_add_rows(nullptr, dx.view(), dy.view(), index.view());
  expect_gradient("x", x, dx, loss);
}

}  // namespace
}  // namespace temper::backend::test
