// Attention cut by heads over ranks against one rank, in float64: outputs, gradients, the indexer's loss and choices.
#include <map>

#include "attention_rig.h"
#include "comm/world.h"

namespace temper::layers {
namespace {

void fill_with(View view, int64_t first, uint64_t key, double mean = 0) {
  const Philox random{31, RandomPurpose::kTest};
  for (int64_t i = 0; i < view.size(); ++i) view.data<double>()[i] = mean + 0.5 * random.normal(key, first + i);
}

struct Case {
  AttentionDims dims;
  std::vector<int32_t> cu_seqlens;
  EntryUse use = EntryUse::kBest;
};

AttentionDims dims_of(int64_t rate, bool csa) { return attention_dims(rate, csa, 8, 4); }

// Of all rows and whole parameters, where this rank has them; 0 elsewhere. Summed over ranks: the result of one.
struct Result {
  std::vector<double> y_TD, dh_TD;
  std::map<std::string, std::vector<double>> gradients;  // of the layer, then with those of the indexer's loss
  double indexer_loss = 0;
  std::vector<int32_t> selected_TA;  // equal on all ranks
};

Result run(const Case& c, const TensorPart& part, comm::Comm* tp) {
  AttentionDims dims = c.dims;
  dims.part = part;
  const int64_t T = c.cu_seqlens.back(), D = dims.D, begin = part.begin(T), P = part.end(T) - begin;
  AttentionRig rig(dims, T, {T}, {part.piece(T), part.piece(T), part.padded(T)});
  Ctx ctx = rig.ctx();
  ctx.groups.tp = tp;
  for (size_t i = 0; i < rig.list.size(); ++i)
    fill_with(rig.list[i]->value, rig.list[i]->whole_index(0), i, rig.list[i]->init == Init::kOnes ? 1 : 0);
  const MicroBatch batch{std::vector<int32_t>(T, 1), c.cu_seqlens, {}, {}};
  const View h_PD = rig.h.first(P), y_PD = rig.y.first(P), dy_PD = rig.dy.first(P), dh_PD = rig.dh.first(P);
  fill_with(h_PD, begin * D, 100), fill_with(dy_PD, begin * D, 101);

  const Attention::Saved now = rig.begin(ctx, batch, rig.whole_layout(batch));
  const View selected_TA = dims.csa ? rig.selected.first(T) : View{};
  rig.attention.forward(ctx, y_PD, h_PD, now, selected_TA, {}, c.use, rig.layout, rig.rotary);
  if (dims.csa)
    rig.attention.backward_indexer(ctx, rig.loss_1, h_PD, now, selected_TA, c.use, 1.5, rig.layout, rig.rotary);
  rig.attention.backward(ctx, dh_PD, dy_PD, h_PD, now, selected_TA, c.use, rig.layout, rig.rotary);

  Result out;
  const auto in_place = [&](const View& rows) {
    std::vector<double> all(T * D, 0);
    const auto mine = to_vector(rows);
    std::copy(mine.begin(), mine.end(), all.begin() + begin * D);
    return all;
  };
  out.y_TD = in_place(y_PD), out.dh_TD = in_place(dh_PD);
  for (const Parameter* p : rig.list) {
    auto& whole = out.gradients[p->name];
    whole.resize(p->whole_shape().size());
    const auto mine = to_vector(p->grad);
    for (int64_t i = 0; i < p->grad.size(); ++i) whole[p->whole_index(i)] = mine[i];
  }
  out.indexer_loss = rig.loss_1.data<double>()[0];
  if (dims.csa && rig.attention.is_choosing(rig.layout, c.use))
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
