// Attention whose documents are cut over ranks against one rank that has them whole: outputs, the indexer's loss and
// every gradient, in float64.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "attention_rig.h"
#include "comm/world.h"

namespace temper::layers {
namespace {

struct Result {
  std::vector<double> y, dh;  // of this rank's rows
  double loss = 0;            // of the indexer
  std::map<std::string, std::vector<double>> gradients;
};

// Forward, backward and the indexer's backward over documents of these lengths; cp null: one rank.
Result run(AttentionDims dims, EntryUse use, const std::vector<int64_t>& lengths, comm::Comm* cp) {
  const int64_t rank = comm::group_rank(cp), size = comm::group_size(cp);
  const int64_t T = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const RowCut cut = even_cut(T, rank, size);
  const RowCapacity capacity{std::max<int64_t>(1, (T + size - 1) / size), size};
  dims.num_ranks = dims.indexer.num_ranks = size;
  MicroBatch batch;
  batch.tokens.resize(T), batch.cu_seqlens = {0};
  for (const int64_t length : lengths)
    batch.cu_seqlens.push_back(batch.cu_seqlens.back() + static_cast<int32_t>(length));

  AttentionRig rig(dims, T, capacity, {T, capacity.max_rows, capacity.max_rows});
  rig.randomize(rig.h, 1), rig.randomize(rig.dy, 1);  // equal on all ranks
  Ctx ctx = rig.ctx();
  ctx.groups.cp = cp;
  const auto now = rig.begin(ctx, batch, cut_layout(rig.whole_layout(batch), cut));

  const View h = rig.h.rows(cut.begin(), cut.end()), dy = rig.dy.rows(cut.begin(), cut.end());
  const View y = rig.y.first(cut.num_rows()), dh = rig.dh.first(cut.num_rows());
  const View selected = dims.csa ? rig.selected.first(cut.num_rows()) : View{};
  rig.attention.forward(ctx, y, h, now, selected, {}, use, rig.layout, rig.rotary);
  if (dims.csa) rig.attention.backward_indexer(ctx, rig.loss_1, h, now, selected, use, 1.5, rig.layout, rig.rotary);
  rig.attention.backward(ctx, dh, dy, h, now, selected, use, rig.layout, rig.rotary);
  Result result{to_vector(y), to_vector(dh), rig.loss_1.data<double>()[0], {}};
  for (const Parameter* p : rig.list) result.gradients[p->name] = to_vector(p->grad);
  return result;
}

void add(std::vector<double>& to, const std::vector<double>& from) {
  to.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

double difference(const std::vector<double>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  double square = 0, norm = 0;
  for (size_t i = 0; i < want.size() && i < got.size(); ++i)
    square += (got[i] - want[i]) * (got[i] - want[i]), norm += want[i] * want[i];
  return square == 0 ? 0 : std::sqrt(square / norm);
}

void expect_equal(const AttentionDims& dims, EntryUse use, const std::vector<int64_t>& lengths, int64_t num_ranks) {
  const Result one = run(dims, use, lengths, nullptr);
  std::vector<Result> of_rank(num_ranks);
  comm::run_ranks(num_ranks, [&](comm::Comm& world) { of_rank[world.rank()] = run(dims, use, lengths, &world); });
  Result sum;
  for (const Result& result : of_rank) {
    sum.y.insert(sum.y.end(), result.y.begin(), result.y.end());
    sum.dh.insert(sum.dh.end(), result.dh.begin(), result.dh.end());
    sum.loss += result.loss;
    for (const auto& [name, gradient] : result.gradients) add(sum.gradients[name], gradient);
  }
  EXPECT_LE(difference(sum.y, one.y), 1e-13);
  EXPECT_LE(difference(sum.dh, one.dh), 1e-13);
  EXPECT_NEAR(sum.loss, one.loss, 1e-13 * std::abs(one.loss));
  for (const auto& [name, gradient] : one.gradients)
    EXPECT_LE(difference(sum.gradients[name], gradient), 1e-13) << name;
}

struct Case {
  const char* name;
  int64_t rate;
  bool csa;
  EntryUse use = EntryUse::kBest;
};

class ContextParallel : public ::testing::TestWithParam<Case> {
 protected:
  void check(const std::vector<int64_t>& lengths, int64_t num_ranks) {
    SCOPED_TRACE(::testing::Message() << num_ranks << " ranks, " << lengths.size() << " documents");
    expect_equal(attention_dims(GetParam().rate, GetParam().csa), GetParam().use, lengths, num_ranks);
  }
};

TEST_P(ContextParallel, DocumentsThatCrossRanks) {
  for (const int64_t num_ranks : {2, 3, 4}) {
    check({13, 16, 1}, num_ranks);
    check({30}, num_ranks);
  }
}

// A window, and what an entry is made of, then lies on several ranks.
TEST_P(ContextParallel, RanksShorterThanAWindow) {
  check({17}, 6);
  check({3, 14, 2}, 8);
}

TEST_P(ContextParallel, RanksWithoutRowsOrEntries) {
  check({3}, 4);
  check({2, 1, 2, 1, 3}, 3);
  check({2, 9}, 2);  // the first rank makes no entry
  check({}, 2);
}

INSTANTIATE_TEST_SUITE_P(Layers, ContextParallel,
                         ::testing::Values(Case{"Sliding", 0, false}, Case{"Sparse", 4, true},
                                           Case{"SparseOfAnotherRate", 3, true},
                                           Case{"SparseAll", 4, true, EntryUse::kAll}, Case{"Heavy", 5, false}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace temper::layers
