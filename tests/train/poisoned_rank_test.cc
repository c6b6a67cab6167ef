// A value that is not finite on one rank of many: all know of it, and whose it is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "comm/world.h"
#include "train/incident.h"
#include "train/incident_rig.h"
#include "train/layouts.h"

namespace temper::train {
namespace {

using parallel::Layout;
using ::testing::AllOf;
using ::testing::HasSubstr;

// One rank of a world, with a model and a step of four micro-batches.
struct RankRig {
  RankRig(comm::Comm& world, const Layout& layout)
      : ranks(parallel::join_mesh(world, layout)),
        session(backend::cpu(), testing::layout_config(), options_of(ranks), StateMemory::kNone, &ranks) {
    session.model().initialize(session.ctx(), 3);
    data.micro_batches = c.steps[0];
  }
  model::ModelOptions options_of(const parallel::Ranks& placed) const {
    model::ModelOptions options = c.options;
    options.max_tokens = 128;
    placed.place(testing::layout_config(), 4, options);
    return options;
  }
  // The step on this rank's ops, and what all ranks find about it.
  Incident find(layers::Ctx& ctx) {
    const StepParts parts{ctx, session.model(), *objective, session.norm_meter(), adamw, 1.0, c.auxiliary};
    Step step(parts);
    result = step.compute(data.micro_batches, 1e-3);
    return investigate({parts, session.book(), data, nullptr, 1e-3}, 1, result, {Anomaly::kNonFinite});
  }

  const testing::TrainedCase c = testing::layout_case(4);
  const parallel::Ranks ranks;
  Session session;
  data::LoaderStep data;
  std::unique_ptr<objective::Objective> objective = objective::make_objective("sft", {});
  optim::Adamw adamw{optim::AdamwOptions{}};
  StepResult result;
};

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Every attention that a rank computes gives a NaN.
struct PoisonedAttention : backend::OpWatcher {
  void before(const backend::OpCall&) override {}
  void after(const backend::OpCall& call) override {
    if (call.id == backend::OpId::attention_forward)
      testing::set_element(testing::operand_of(call, "o_TNH"), {5, 1, 3}, kNan);
  }
};

// What only one rank finds is known to all, and nobody is waited for in vain.
struct PoisonedCase {
  Layout layout;
  int64_t rank;  // the one with the bad value
};
class PoisonedRankTest : public ::testing::TestWithParam<PoisonedCase> {};

TEST_P(PoisonedRankTest, AValueThatIsNotFiniteIsFoundByAllRanks) {
  const auto& [layout, poisoned] = GetParam();
  comm::run_ranks(layout.dp * layout.pp * layout.cp * layout.tp, [&, layout = layout,
                                                                  poisoned = poisoned](comm::Comm& world) {
    world.set_deadline(20);
    RankRig rig(world, layout);
    PoisonedAttention poison;
    backend::WatchedBackend faulty(backend::cpu(), rig.session.ctx().stream, poison);
    layers::Ctx ctx = rig.session.ctx();
    layers::Ctx bad{
        faulty.backend().ops, faulty.backend().device, faulty.stream(), ctx.act, ctx.acc, -1, ctx.groups, ctx.beside};
    const Incident incident = rig.find(world.rank() == poisoned ? bad : ctx);
    EXPECT_FALSE(rig.result.finite());
    EXPECT_TRUE(std::isnan(rig.result.loss)) << rig.result.loss;
    EXPECT_EQ(rig.result.norms.first_nonfinite, "model.embed_tokens.weight");
    EXPECT_FALSE(incident.is_transient);
    ASSERT_TRUE(incident.bad);
    const parallel::MeshRank at = parallel::mesh_rank(layout, poisoned);
    EXPECT_EQ(incident.bad->rank, poisoned);
    EXPECT_EQ(incident.bad->op, "attention_forward");
    EXPECT_EQ(incident.bad->operand, "o_TNH");
    EXPECT_EQ(incident.bad->layer, at.pp == 0 ? 0 : 2) << "the first of the stage";
    EXPECT_THAT(incident.bad->index, ::testing::ElementsAre(5, 1, 3));
    EXPECT_EQ(incident.bad->place.has_value(), layout.cp * layout.tp == 1) << "rows of a part have no place yet";
    if (!incident.bad->place) return;
    const int64_t micro_batch = incident.bad->place->micro_batch;
    EXPECT_EQ(incident.dp_rank_M.at(micro_batch), at.dp);
    EXPECT_EQ(incident.bad->place->token_id, rig.data.micro_batches[micro_batch].tokens[5]);
    EXPECT_THAT(describe(incident), AllOf(HasSubstr("First bad value, on rank " + std::to_string(poisoned) + ": "),
                                          HasSubstr("forward of micro-batch " + std::to_string(micro_batch))));
    EXPECT_GT(incident.statistics.size(), 100u);
  });
}

// The other rank gets what these experts make of its rows, and reads it later.
TEST(PoisonedExpertTest, TheRankThatHasItIsNamed) {
  comm::run_ranks(2, [&](comm::Comm& world) {
    RankRig rig(world, {.dp = 2, .ep = 2, .zero = 0});
    for (const layers::Parameter* p : rig.session.model().parameters())
      if (world.rank() == 1 && p->name == "model.layers.2.mlp.experts.down_proj")
        rig.session.ctx().ops.fill(rig.session.ctx().stream, p->value, kNan);
    const Incident incident = rig.find(rig.session.ctx());
    EXPECT_THAT(describe(incident),
                HasSubstr("First bad value, on rank 1: model.layers.2.mlp.experts.down_proj[4, 0, 0] = nan"));
  });
}

INSTANTIATE_TEST_SUITE_P(Layouts, PoisonedRankTest,
                         ::testing::Values(PoisonedCase{{.dp = 2, .zero = 1}, 1},
                                           PoisonedCase{{.dp = 2, .ep = 2, .zero = 3}, 0},
                                           PoisonedCase{{.dp = 1, .pp = 2}, 1}, PoisonedCase{{.dp = 1, .tp = 2}, 1},
                                           PoisonedCase{{.dp = 1, .cp = 2}, 1},
                                           PoisonedCase{{.dp = 2, .ep = 2, .pp = 2}, 1}));

}  // namespace
}  // namespace temper::train
