// Pooling, index selection and attention: gradients, and the corners of packed documents.
#include <gtest/gtest.h>

#include <cmath>

#include "backend/gradient.h"
#include "backend/packed_rows.h"

namespace temper::backend::test {
namespace {

const OpTable& ops = cpu_reference().ops;

TEST(GradientAttention, Compress) {
  for (const bool overlap : {false, true}) {
    SCOPED_TRACE(overlap ? "overlapping windows" : "windows apart");
    const int64_t H = 3, m = 4, Z = overlap ? 2 * H : H;
    const PackedRows rows = pack_rows({9, 2, 4}, 3, m);  // a tail, a document without an entry, one with a single entry
    const int64_t T = rows.T(), C = rows.C();
    Indices row = Indices::of(rows.row_C), prev = Indices::of(rows.prev_row_C);
    const CompressRanges ranges{row.view(), overlap ? prev.view() : View(), m};
    Tensor z = Tensor::random({T, Z}, 1), g = Tensor::random({T, Z}, 2), ape = Tensor::random({m, Z}, 3);
    Tensor dv = Tensor::random({C, H}, 4), v({C, H}), dz({T, Z}), dg({T, Z}), dape({m, Z});
    const auto loss = [&] {
      ops.compress_forward(nullptr, v.view(), z.view(), g.view(), ape.view(), ranges);
      return dot(v, dv);
    };
    ops.compress_backward(nullptr, dz.view(), dg.view(), dape.view(), dv.view(), z.view(), g.view(), ape.view(),
                          ranges);
    expect_gradient("z", z, dz, loss);
    expect_gradient("g", g, dg, loss);
    expect_gradient("ape", ape, dape, loss);
  }
}

// The first window of a document is a softmax over its own rows only: the rows before it, of another document, do not
// count.
TEST(Attention, FirstOverlappingWindowLooksAtItsOwnDocument) {
  const int64_t H = 2, m = 2;
  const PackedRows rows = pack_rows({4, 4}, 3, m);
  Indices row = Indices::of(rows.row_C), prev = Indices::of(rows.prev_row_C);
  Tensor z = Tensor::random({8, 2 * H}, 1), g = Tensor::random({8, 2 * H}, 2), ape = Tensor::random({m, 2 * H}, 3),
         v({4, H});
  const auto entry = [&](size_t e) {
    ops.compress_forward(nullptr, v.view(), z.view(), g.view(), ape.view(), {row.view(), prev.view(), m});
    return v[e * static_cast<size_t>(H)];
  };
  const double first_of_second = entry(2), second_of_second = entry(3);
  z[3 * 4] += 1;  // last row of the first document, first half
  EXPECT_EQ(entry(2), first_of_second);
  z[5 * 4] += 1;  // first window of the second document, first half: feeds the next window
  EXPECT_EQ(entry(2), first_of_second);
  EXPECT_NE(entry(3), second_of_second);
}

struct Attended {
  PackedRows rows;
  bool entries, chosen;
  int64_t N = 2, H = 5, T = rows.T(), C = entries ? rows.C() : 0;
  Indices key_begin = Indices::of(rows.key_begin_T), key_end = Indices::of(rows.key_end_T),
          entry_begin = Indices::of(rows.entry_begin_T), entry_count = Indices::of(rows.entry_count_T);
  Indices selected = {};
  Tensor q = Tensor::random({T, N, H}, 1), c = Tensor::random({T, H}, 2), k = Tensor::random({C, H}, 3);
  Tensor sink = Tensor::random({N}, 4), o{{T, N, H}}, lse{{T, N}};
  double scale = 0.5;

  KeyRanges ranges() {
    KeyRanges out{key_begin.view(), key_end.view(), {}, {}, {}, 0};
    if (entries) out.entry_begin_T = entry_begin.view(), out.entry_count_T = entry_count.view();
    if (chosen) out.selected_TA = selected.view();
    return out;
  }
  View keys() { return entries ? k.view() : View(); }
  void forward() {
    ops.attention_forward(nullptr, o.view(), lse.view(), q.view(), c.view(), keys(), sink.view(), ranges(), scale);
  }
};

// Of every query's visible entries the first and the last but one, where there are so many; -1 in the other places.
Indices some_entries(const PackedRows& rows) {
  std::vector<int32_t> out;
  for (const double count : rows.entry_count_T) {
    out.push_back(count >= 1 ? 0 : -1);
    out.push_back(count >= 3 ? static_cast<int32_t>(count) - 2 : -1);
    out.push_back(-1);
  }
  return Indices({rows.T(), 3}, out);
}

TEST(GradientAttention, WindowEntriesAndSink) {
  for (const int mode : {0, 1, 2}) {
    SCOPED_TRACE(mode == 0 ? "window only" : mode == 1 ? "all visible entries" : "selected entries");
    const PackedRows rows = pack_rows({7, 1, 4}, 3, 2);
    Attended a{rows, mode > 0, mode == 2};
    if (a.chosen) a.selected = some_entries(rows);
    Tensor dout = Tensor::random(a.o.shape(), 5);
    const auto loss = [&] {
      a.forward();
      return dot(a.o, dout);
    };
    loss();
    Tensor dq(a.q.shape()), dc(a.c.shape()), dk(a.k.shape()), dsink({a.N}), workspace({1, a.T + a.C, a.H});
    ops.attention_backward(nullptr, dq.view(), dc.view(), a.entries ? dk.view() : View(), dsink.view(), dout.view(),
                           a.o.view(), a.lse.view(), a.q.view(), a.c.view(), a.keys(), a.sink.view(), a.ranges(),
                           a.scale, workspace.view());
    expect_gradient("q", a.q, dq, loss);
    expect_gradient("c", a.c, dc, loss);
    expect_gradient("sink", a.sink, dsink, loss);
    if (a.entries) expect_gradient("k", a.k, dk, loss);
  }
}

TEST(Attention, AQueryThatSeesNothingGivesZero) {
  Attended a{pack_rows({2}, 3, 2), false, false};
  a.key_begin = Indices::of<int>({0, 1});
  a.key_end = Indices::of<int>({1, 1});  // the second query has no key
  a.forward();
  for (int64_t i = 0; i < a.N * a.H; ++i) EXPECT_EQ(a.o[static_cast<size_t>(a.N * a.H + i)], 0);
  EXPECT_DOUBLE_EQ(a.lse[2], a.sink[0]);
}

// One key with logit l and a sink s: the key's probability is e^l / (e^l + e^s), the sink's value is 0.
TEST(Attention, SinkTakesItsShare) {
  Tensor q = Tensor::of({1, 1, 1}, {2}), c = Tensor::of({1, 1}, {3}), sink = Tensor::of({1}, {0.5}), o({1, 1, 1}),
         lse({1, 1});
  Indices begin = Indices::of<int>({0}), end = Indices::of<int>({1});
  ops.attention_forward(nullptr, o.view(), lse.view(), q.view(), c.view(), View(), sink.view(),
                        {begin.view(), end.view(), {}, {}, {}, 0}, 0.25);
  const double l = 2 * 3 * 0.25;
  EXPECT_DOUBLE_EQ(lse[0], std::log(std::exp(l) + std::exp(0.5)));
  EXPECT_DOUBLE_EQ(o[0], 3 * std::exp(l) / (std::exp(l) + std::exp(0.5)));
}

// An indexer and the attention that teaches it, on the same entries.
struct Taught {
  PackedRows rows;
  bool chosen;
  int64_t T = rows.T(), C = rows.C(), I = 2, P = 3, N = 2, H = 4;
  Indices begin = Indices::of(rows.entry_begin_T), count = Indices::of(rows.entry_count_T),
          selected = some_entries(rows);
  Tensor q = Tensor::random({T, I, P}, 11), k = Tensor::random({C, P}, 12), w = Tensor::random({T, I}, 13);
  Tensor query = Tensor::random({T, N, H}, 14), entry = Tensor::random({C, H}, 15), lse = Tensor::random({T, N}, 16);
  Tensor loss{{1}}, dq{{T, I, P}}, dk{{C, P}}, dw{{T, I}}, workspace{{1, C, P}};

  double run(double coefficient) {
    const KeyRanges ranges{{}, {}, begin.view(), count.view(), chosen ? selected.view() : View(), 0};
    loss[0] = 0;
    ops.indexer_loss(nullptr, loss.view(), dq.view(), dk.view(), dw.view(), q.view(), k.view(), w.view(), query.view(),
                     entry.view(), lse.view(), ranges, 0.5, 0.8, coefficient, workspace.view());
    return loss[0];
  }
  // The smallest |<q, k>|: a difference quotient across the kink of max(0, .) is no derivative.
  double distance_to_kink() const {
    double least = 1e9;
    for (size_t row = 0; row < static_cast<size_t>(T * I); ++row)
      for (size_t e = 0; e < static_cast<size_t>(C); ++e) {
        double product = 0;
        for (size_t p = 0; p < static_cast<size_t>(P); ++p)
          product += q[row * static_cast<size_t>(P) + p] * k[e * static_cast<size_t>(P) + p];
        least = std::min(least, std::abs(product));
      }
    return least;
  }
};

TEST(GradientAttention, IndexerLoss) {
  for (const bool chosen : {false, true}) {
    SCOPED_TRACE(chosen ? "selected entries" : "all visible entries");
    Taught a{pack_rows({7, 1, 6}, 3, 2), chosen};
    ASSERT_GT(a.distance_to_kink(), 0.01);
    a.run(0.3);
    const Tensor dq = a.dq, dk = a.dk, dw = a.dw;
    const auto loss = [&] { return 0.3 * a.run(0); };
    expect_gradient("q", a.q, dq, loss);
    expect_gradient("k", a.k, dk, loss);
    expect_gradient("w", a.w, dw, loss);
    for (size_t i = 0; i < dw.size(); ++i) {
      const bool can_choose = a.rows.entry_count_T[i / 2] >= 2;
      EXPECT_TRUE(can_choose || dw[i] == 0) << i;
    }
  }
}

// Two entries, one head each: pi = (e, 1) / (e + 1) and, with no weight, rho = (1/2, 1/2). What window and sink take
// from the entries (lse) is divided out, down to where P itself underflows.
TEST(Attention, IndexerLossIsTheDivergenceFromAttention) {
  for (const double lse : {0.0, 3.0, 2000.0}) {
    Taught a{pack_rows({4}, 3, 2), false};
    a.N = a.H = 1;
    a.query = Tensor::of({4, 1, 1}, {2, 2, 2, 2}), a.entry = Tensor::of({2, 1}, {1, 0});
    a.lse = Tensor::of({4, 1}, {lse, lse, lse, lse}), a.w = Tensor({4, 2});
    const double p = std::exp(1.0) / (std::exp(1.0) + 1);
    // Queries 1 and 2 see one entry, where both distributions are 1; query 3 sees two.
    EXPECT_NEAR(a.run(1), p * std::log(2 * p) + (1 - p) * std::log(2 * (1 - p)), 1e-12) << lse;
  }
}

TEST(Attention, IndexTakesTheBestInAscendingOrderAndTheLowerOfEquals) {
  // One indexer head of one channel: scores are 1, 3, 3, 0, 3 times w = 1; the last query weighs with -1.
  Tensor q = Tensor::of({4, 1, 1}, {1, 1, 1, 1}), k = Tensor::of({5, 1}, {1, 3, 3, -2, 3}),
         w = Tensor::of({4, 1}, {1, 1, 1, -1});
  Indices begin = Indices::of<int>({0, 0, 1, 0}), count = Indices::of<int>({5, 2, 4, 5});
  std::vector<int32_t> selected(12, 7);
  ops.index_topk(nullptr, View(selected.data(), DType::kI32, {4, 3}), q.view(), k.view(), w.view(), begin.view(),
                 count.view(), 1);
  const std::vector<int32_t> want = {1, 2, 4, 0, 1, -1, 0, 1, 3, 0, 1, 3};  // relative to entry_begin
  EXPECT_EQ(selected, want);
}

}  // namespace
}  // namespace temper::backend::test
