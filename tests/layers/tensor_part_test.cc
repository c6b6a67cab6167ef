// What the ranks of a tensor parallel group compute together is what one rank computes alone, in float64.
#include "layers/tensor_part.h"

#include "comm/world.h"
#include "layer_rig.h"
#include "layers/embedding.h"
#include "layers/lm_head.h"

namespace temper::layers {
namespace {

constexpr int64_t kV = 24, kD = 6, kM = 2, kChunk = 5;

std::vector<double> values(const View& view) {
  return std::vector<double>(view.data<double>(), view.data<double>() + view.size());
}

// Rows [begin, end) of `width` values each.
std::vector<double> rows(const std::vector<double>& all, int64_t begin, int64_t end, int64_t width) {
  return {all.begin() + begin * width, all.begin() + end * width};
}

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected, const char* what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-13) << what << " " << i;
}

// A number for each element of a tensor: the same on every layout.
void fill_with(View view, int64_t first, uint64_t key) {
  const Philox random{29, RandomPurpose::kTest};
  for (int64_t i = 0; i < view.size(); ++i) view.data<double>()[i] = random.normal(key, first + i);
}

struct VocabularyCase {
  std::vector<int32_t> tokens, targets;
  bool is_known = false;  // dLoss/dlogp before the log-probabilities
};

VocabularyCase vocabulary_case(int64_t T, bool is_known) {
  VocabularyCase c{{}, {}, is_known};
  for (int64_t t = 0; t < T; ++t) {
    c.tokens.push_back(static_cast<int32_t>((5 * t * t + t) % kV));
    c.targets.push_back(t % 4 == 3 ? -1 : static_cast<int32_t>((7 * t + 2) % kV));
  }
  return c;
}

// What embedding and head make of a micro-batch: on this rank.
struct VocabularyResult {
  std::vector<double> x_PMD, dtable_VD, logp_T, dy_PD, dhead_VD;
  std::vector<int32_t> best_T;
};

VocabularyResult run_vocabulary(const VocabularyCase& c, const TensorPart& part, comm::Comm* tp) {
  LayerRig rig;
  Ctx ctx = rig.ctx();
  ctx.groups.tp = tp;
  const auto T = static_cast<int64_t>(c.tokens.size());
  const int64_t begin = part.begin(T), end = part.end(T), P = end - begin;
  Embedding embedding(kV, kD, LayerRig::kDtypes, part);
  LmHead head(kV, kD, kChunk, LayerRig::kDtypes, part);
  LmHead::Saved saved;
  ParameterList list;
  embedding.collect(list), head.collect(list);
  rig.declare_parameters(list);
  embedding.declare_scratch(rig.book, T, true);
  head.declare_saved(rig.book, saved, "head", T);
  View full_x, full_dx, full_y, full_dy, full_token;
  const int64_t room = part.piece(T);
  for (View* view : {&full_x, &full_dx}) rig.declare(*view, {room, kM, kD});
  for (View* view : {&full_y, &full_dy}) rig.declare(*view, {room, kD});
  rig.declare_index(full_token, {room});
  head.declare_scratch(rig.book, T, true);
  rig.grant(list);
  for (size_t i = 0; i < list.size(); ++i) {
    fill_with(list[i]->value, list[i]->whole_index(0), i);
    ctx.ops.fill(ctx.stream, list[i]->grad, 0);
  }
  // Two words of different ranks whose logits are equal: the lower one is the best, and wherever it is largest.
  const auto copy_word = [&](int64_t word) {
    const Parameter& w = *list[1];
    const int64_t local = word - w.part.begin;
    if (local < 0 || local >= w.shape[0]) return;
    for (int64_t d = 0; d < kD; ++d) w.value.data<double>()[local * kD + d] = 3.0 + static_cast<double>(d);
  };
  copy_word(3), copy_word(kV - 2);
  const View x_PMD = full_x.first(P), dx_PMD = full_dx.first(P), y_PD = full_y.first(P), dy_PD = full_dy.first(P);
  fill_with(dx_PMD, begin * kM * kD, 7), fill_with(y_PD, begin * kD, 8);
  for (int64_t t = begin; t < end; ++t) full_token.data<int32_t>()[t - begin] = c.tokens[t];

  VocabularyResult out;
  embedding.forward(ctx, x_PMD, c.tokens, full_token.first(P));
  embedding.backward(ctx, dx_PMD, c.tokens, full_token.first(P));
  std::vector<double> g(T);
  for (int64_t t = 0; t < T; ++t) g[t] = c.targets[t] < 0 ? 0 : 0.1 + 0.01 * static_cast<double>(t);
  const LmHead::Known known = c.is_known ? LmHead::Known{g, dy_PD} : LmHead::Known{};
  head.logprobs(ctx, y_PD, c.targets, saved, out.logp_T, out.best_T, known);
  head.backward(ctx, dy_PD, y_PD, g, saved);
  out.x_PMD = values(x_PMD), out.dtable_VD = values(list[0]->grad);
  out.dy_PD = values(dy_PD), out.dhead_VD = values(list[1]->grad);
  return out;
}

class VocabularyParallelTest : public ::testing::TestWithParam<std::tuple<int64_t, int64_t, bool>> {};

TEST_P(VocabularyParallelTest, GivesTheAnswerOfOneRank) {
  const auto [num_ranks, T, is_known] = GetParam();
  const VocabularyCase c = vocabulary_case(T, is_known);
  const VocabularyResult one = run_vocabulary(c, {}, nullptr);
  comm::run_ranks(num_ranks, [&, T = T](comm::Comm& world) {
    const TensorPart part{world.rank(), world.size()};
    const VocabularyResult mine = run_vocabulary(c, part, &world);
    const int64_t begin = part.begin(T), end = part.end(T), words = kV / part.size;
    expect_near(mine.x_PMD, rows(one.x_PMD, begin, end, kM * kD), "x");
    expect_near(mine.dtable_VD, rows(one.dtable_VD, part.rank * words, (part.rank + 1) * words, kD), "dtable");
    expect_near(mine.logp_T, one.logp_T, "logp");
    expect_near(mine.dy_PD, rows(one.dy_PD, begin, end, kD), "dy");
    expect_near(mine.dhead_VD, rows(one.dhead_VD, part.rank * words, (part.rank + 1) * words, kD), "dhead");
    EXPECT_EQ(mine.best_T, one.best_T);
  });
  const auto num_best = [&](int32_t word) { return std::count(one.best_T.begin(), one.best_T.end(), word); };
  if (T > 1) EXPECT_GT(num_best(3), 0) << "the lower of two equal words";
  EXPECT_EQ(num_best(kV - 2), 0);
}

// Of 13 rows on 4 ranks the last has one; of 5 the last two have one and none; of 1 all but the first have none.
INSTANTIATE_TEST_SUITE_P(Ranks, VocabularyParallelTest,
                         ::testing::Combine(::testing::Values(2, 3, 4), ::testing::Values(13, 5, 1),
                                            ::testing::Bool()));

TEST(TensorPartTest, ColumnsBecomeRowsAndRowsColumns) {
  constexpr int64_t kRows = 5, kWidth = 3;
  comm::run_ranks(3, [&](comm::Comm& world) {
    LayerRig rig;
    Ctx ctx = rig.ctx();
    ctx.groups.tp = &world;
    const TensorPart part{world.rank(), world.size()};
    const int64_t begin = part.begin(kRows), P = part.end(kRows) - begin;
    View all, back, own, buffer;
    rig.declare(all, {kRows, kWidth}), rig.declare(back, {kRows, kWidth});
    rig.declare(own, {part.piece(kRows), 3 * kWidth}), rig.declare(buffer, {part.padded(kRows), kWidth});
    rig.grant({});
    for (int64_t i = 0; i < kRows; ++i)
      for (int64_t x = 0; x < kWidth; ++x)
        all.data<double>()[i * kWidth + x] = static_cast<double>(100 * i + part.rank * kWidth + x);
    columns_to_rows(ctx, part, own.first(P), all, buffer, "test");
    for (int64_t i = 0; i < P; ++i)
      for (int64_t y = 0; y < 3 * kWidth; ++y)
        EXPECT_EQ(own.data<double>()[i * 3 * kWidth + y], static_cast<double>(100 * (begin + i) + y));
    rows_to_columns(ctx, part, back, own.first(P), buffer, "test");
    EXPECT_EQ(values(back), values(all));
  });
}

}  // namespace
}  // namespace temper::layers
