// Attention whose documents are cut over ranks against one rank that has them whole: outputs, the indexer's loss and
// every gradient, in float64.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "base/thread.h"
#include "comm/world.h"
#include "layer_rig.h"
#include "layers/attention.h"

namespace temper::layers {
namespace {

constexpr int64_t kWindow = 6;

AttentionDims dims_of(int64_t rate, bool csa) {
  AttentionDims dims{.D = 10, .N = 4, .H = 12, .Q = 7, .G = 2, .O = 5};
  dims.rate = rate, dims.csa = csa, dims.window = kWindow;
  if (csa) dims.indexer = {10, 7, 3, 12, 2, rate, 1e-6};
  return dims;
}

struct Result {
  std::vector<double> y, dh;  // of this rank's rows
  double loss = 0;            // of the indexer
  std::map<std::string, std::vector<double>> gradients;
};

std::vector<double> values(const View& view) {
  return view.size() == 0 ? std::vector<double>{}
                          : std::vector<double>(view.data<double>(), view.data<double>() + view.size());
}

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

  LayerRig rig;
  Attention attention("a.", dims, LayerRig::kDtypes);
  RotaryTable rotary("rotary", {8, 160000, true, 16, 32, 1, 64});
  DeviceLayout layout;
  Attention::Saved saved;
  ParameterList list;
  View h_TD, dy_TD, y_TD, dh_TD, selected_TA, loss_1;
  attention.collect(list);
  rig.declare_parameters(list);
  const std::vector<int64_t> rates = dims.rate > 0 ? std::vector<int64_t>{dims.rate} : std::vector<int64_t>{};
  rotary.declare(rig.book, T, DType::kF64);
  layout.declare(rig.book, capacity, rates);
  attention.declare_saved(rig.book, saved, capacity.max_rows);
  attention.declare_scratch(rig.book, capacity.max_rows, num_threads(), true);
  for (View* view : {&h_TD, &dy_TD}) rig.declare(*view, {T, dims.D});
  for (View* view : {&y_TD, &dh_TD}) rig.declare(*view, {capacity.max_rows, dims.D});
  if (dims.csa) rig.declare_index(selected_TA, {capacity.max_rows, dims.indexer.A});
  rig.declare(loss_1, {1});
  rig.grant(list);
  rig.randomize(h_TD, 1), rig.randomize(dy_TD, 1);  // equal on all ranks
  Ctx ctx = rig.ctx();
  ctx.groups.cp = cp;
  rotary.prepare(ctx);
  layout.upload(ctx.device, ctx.stream, batch, cut_layout(make_layout(batch.cu_seqlens, kWindow, rates), cut));
  ctx.ops.fill(ctx.stream, loss_1, 0);
  for (const Parameter* p : list) ctx.ops.fill(ctx.stream, p->grad, 0);

  const View h = h_TD.rows(cut.begin(), cut.end()), dy = dy_TD.rows(cut.begin(), cut.end());
  const View y = y_TD.first(cut.num_rows()), dh = dh_TD.first(cut.num_rows());
  const View selected = dims.csa ? selected_TA.first(cut.num_rows()) : View{};
  const auto now = attention.first(saved, layout);
  attention.forward(ctx, y, h, now, selected, {}, use, layout, rotary);
  if (dims.csa) attention.backward_indexer(ctx, loss_1, h, now, selected, use, 1.5, layout, rotary);
  attention.backward(ctx, dh, dy, h, now, selected, use, layout, rotary);
  Result result{values(y), values(dh), loss_1.data<double>()[0], {}};
  for (const Parameter* p : list) result.gradients[p->name] = values(p->grad);
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
    expect_equal(dims_of(GetParam().rate, GetParam().csa), GetParam().use, lengths, num_ranks);
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
