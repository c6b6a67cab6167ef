// A micro-batch without tokens, as a rank runs it that has no data left while others have: nothing comes of it.
#include <gtest/gtest.h>

#include "golden.h"

namespace temper::model {
namespace {

const ExtraLosses kExtra{.mtp = 0.3, .balance = 0.01, .indexer = 0.1};

std::vector<std::vector<double>> gradients(Rig& rig) {
  std::vector<std::vector<double>> out;
  for (const layers::Parameter* p : rig.model().parameters())
    out.push_back(p->grad.defined() ? rig.read(p->grad) : std::vector<double>{});
  return out;
}

TEST(EmptyMicroBatch, AddsNothingBeforeOrAfterOthers) {
  const layers::MicroBatch empty = next_token_batch({}), batch = next_token_batch({golden::tokens()});
  for (const auto precision : {layers::Precision::kFp64, layers::Precision::kFp32, layers::Precision::kBf16}) {
    for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
      ModelOptions options;
      options.mtp = true, options.recompute = recompute, options.indexer = IndexerUse::kTrain;
      const bool is_exact = precision == layers::Precision::kFp64;
      auto rig = golden::make_rig(precision, is_exact ? backend::cpu_reference() : backend::cpu(), options);
      Model& model = rig->model();
      model.zero_gradients(rig->ctx());
      rig->add_gradients(batch, kExtra);
      const auto want = gradients(*rig);
      const auto losses = model.auxiliary_losses(rig->ctx());
      const auto loads = model.moe_statistics(rig->ctx());

      for (const layers::Parameter* p : model.parameters())  // what the empty one must not leave as it is
        if (p->grad.defined()) rig->ctx().ops.fill(rig->ctx().stream, p->grad, 7);
      model.zero_gradients(rig->ctx());
      EXPECT_EQ(rig->add_gradients(empty, kExtra), 0);
      for (const auto& gradient : gradients(*rig)) EXPECT_EQ(norm(gradient), 0);
      rig->add_gradients(batch, kExtra);
      EXPECT_EQ(rig->add_gradients(empty, kExtra), 0);
      EXPECT_EQ(gradients(*rig), want);
      EXPECT_EQ(model.auxiliary_losses(rig->ctx()).balance_L, losses.balance_L);
      EXPECT_EQ(model.auxiliary_losses(rig->ctx()).indexer_L, losses.indexer_L);
      EXPECT_EQ(model.moe_statistics(rig->ctx())[2].load_E, loads[2].load_E);
      EXPECT_EQ(model.moe_statistics(rig->ctx())[2].entropy, loads[2].entropy);
    }
  }
}

}  // namespace
}  // namespace temper::model
