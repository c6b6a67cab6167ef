// Attention cut by heads over ranks against one rank, in float64: outputs, gradients, the indexer's loss and choices.
#include <map>

#include "base/thread.h"
#include "comm/world.h"
#include "layer_rig.h"
#include "layers/attention.h"

namespace temper::layers {
namespace {

constexpr int64_t kWindow = 6;

std::vector<double> values(const View& view) {
  return std::vector<double>(view.data<double>(), view.data<double>() + view.size());
}

void fill_with(View view, int64_t first, uint64_t key, double mean = 0) {
  const Philox random{31, RandomPurpose::kTest};
  for (int64_t i = 0; i < view.size(); ++i) view.data<double>()[i] = mean + 0.5 * random.normal(key, first + i);
}

struct Case {
  AttentionDims dims;
  std::vector<int32_t> cu_seqlens;
  EntryUse use = EntryUse::kBest;
};

AttentionDims dims_of(int64_t rate, bool csa) {
  AttentionDims dims{.D = 10, .N = 8, .H = 12, .Q = 7, .G = 4, .O = 5};
  dims.rate = rate, dims.csa = csa;
  if (csa) dims.indexer = {10, 7, 3, 12, 2, rate, 1e-6};
  return dims;
}

// Of all rows and whole parameters, where this rank has them; 0 elsewhere. Summed over ranks: the result of one.
struct Result {
  std::vector<double> y_TD, dh_TD;
  std::map<std::string, std::vector<double>> gradients;  // of the layer, then with those of the indexer's loss
  double indexer_loss = 0;
  std::vector<int32_t> selected_TA;  // equal on all ranks
};

Result run(const Case& c, const TensorPart& part, comm::Comm* tp) {
  LayerRig rig;
  AttentionDims dims = c.dims;
  dims.part = part;
  const int64_t T = c.cu_seqlens.back(), D = dims.D, begin = part.begin(T), P = part.end(T) - begin;
  Attention attention("a.", dims, LayerRig::kDtypes);
  RotaryTable rotary("rotary", {8, 160000, true, 16, 32, 1, 64});
  DeviceLayout layout;
  Attention::Saved saved;
  ParameterList list;
  View h, y, dy, dh, selected, loss_1;
  attention.collect(list);
  rig.declare_parameters(list);
  const std::vector<int64_t> rates = dims.rate > 0 ? std::vector<int64_t>{dims.rate} : std::vector<int64_t>{};
  rotary.declare(rig.book, T, DType::kF64);
  layout.declare(rig.book, {T}, rates);
  attention.declare_saved(rig.book, saved, T);
  attention.declare_scratch(rig.book, T, num_threads(), true);
  for (View* view : {&h, &y, &dy, &dh}) rig.declare(*view, {part.piece(T), D});
  if (dims.csa) rig.declare_index(selected, {part.padded(T), dims.indexer.A});
  rig.declare(loss_1, {1});
  rig.grant(list);
  Ctx ctx = rig.ctx();
  ctx.groups.tp = tp;
  for (size_t i = 0; i < list.size(); ++i) {
    fill_with(list[i]->value, list[i]->whole_index(0), i, list[i]->init == Init::kOnes ? 1 : 0);
    ctx.ops.fill(ctx.stream, list[i]->grad, 0);
  }
  rotary.prepare(ctx);
  const MicroBatch batch{std::vector<int32_t>(T, 1), c.cu_seqlens, {}, {}};
  layout.upload(ctx.device, ctx.stream, batch, make_layout(c.cu_seqlens, kWindow, rates));
  const View h_PD = h.first(P), y_PD = y.first(P), dy_PD = dy.first(P), dh_PD = dh.first(P);
  fill_with(h_PD, begin * D, 100), fill_with(dy_PD, begin * D, 101);
  ctx.ops.fill(ctx.stream, loss_1, 0);

  const Attention::Saved now = attention.first(saved, layout);
  const View selected_TA = dims.csa ? selected.first(T) : View{};
  attention.forward(ctx, y_PD, h_PD, now, selected_TA, {}, c.use, layout, rotary);
  if (dims.csa) attention.backward_indexer(ctx, loss_1, h_PD, now, selected_TA, c.use, 1.5, layout, rotary);
  attention.backward(ctx, dh_PD, dy_PD, h_PD, now, selected_TA, c.use, layout, rotary);

  Result out;
  const auto in_place = [&](const View& rows) {
    std::vector<double> all(T * D, 0);
    const auto mine = values(rows);
    std::copy(mine.begin(), mine.end(), all.begin() + begin * D);
    return all;
  };
  out.y_TD = in_place(y_PD), out.dh_TD = in_place(dh_PD);
  for (const Parameter* p : list) {
    auto& whole = out.gradients[p->name];
    whole.resize(p->whole_shape().size());
    const auto mine = values(p->grad);
    for (int64_t i = 0; i < p->grad.size(); ++i) whole[p->whole_index(i)] = mine[i];
  }
  out.indexer_loss = loss_1.data<double>()[0];
  if (dims.csa && attention.is_choosing(layout, c.use))
    out.selected_TA.assign(selected_TA.data<int32_t>(), selected_TA.data<int32_t>() + selected_TA.size());
  return out;
}

void add_ranks(comm::Comm& world, Result& result) {
  const auto add = [&](std::vector<double>& values) {
    const View view(values.data(), DType::kF64, {static_cast<int64_t>(values.size())});
    world.all_reduce(nullptr, view, comm::Reduce::kSum, {"a test's collection"});
  };
  add(result.y_TD), add(result.dh_TD);
  for (auto& [name, gradient] : result.gradients) add(gradient);
  std::vector<double> loss = {result.indexer_loss};
  add(loss);
  result.indexer_loss = loss[0];
}

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected, const std::string& what) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference = std::max(difference, std::abs(actual[i] - expected[i]));
    size = std::max(size, std::abs(expected[i]));
  }
  EXPECT_LE(difference, 1e-12 * size) << what;
}

void expect_one_answer(const Case& c) {
  const Result one = run(c, {}, nullptr);
  for (const int64_t num_ranks : {2, 4}) {
    comm::run_ranks(num_ranks, [&](comm::Comm& world) {
      Result many = run(c, {world.rank(), world.size()}, &world);
      EXPECT_EQ(many.selected_TA, one.selected_TA);
      add_ranks(world, many);
      if (world.rank() > 0) return;
      expect_near(many.y_TD, one.y_TD, "y");
      expect_near(many.dh_TD, one.dh_TD, "dh");
      for (const auto& [name, gradient] : one.gradients) expect_near(many.gradients[name], gradient, name);
      EXPECT_NEAR(many.indexer_loss, one.indexer_loss, 1e-12 * std::abs(one.indexer_loss));
    });
  }
}

// Rows that four ranks cannot share evenly; and so few that the last ranks have none.
const std::vector<int32_t> kDocuments = {0, 13, 29, 30}, kFew = {0, 5};

TEST(AttentionParallelTest, SlidingWindow) { expect_one_answer({dims_of(0, false), kDocuments}); }
TEST(AttentionParallelTest, ChosenEntriesAndTheirIndexer) { expect_one_answer({dims_of(3, true), kDocuments}); }
TEST(AttentionParallelTest, EveryEntryAndItsIndexer) {
  expect_one_answer({dims_of(4, true), kDocuments, EntryUse::kAll});
}
TEST(AttentionParallelTest, HeavilyCompressed) { expect_one_answer({dims_of(5, false), kDocuments}); }
TEST(AttentionParallelTest, FewerRowsThanRanksCanShare) { expect_one_answer({dims_of(2, true), kFew}); }

}  // namespace
}  // namespace temper::layers
