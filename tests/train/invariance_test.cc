// Losses and gradients of a step (main, prediction block and indexer) do not depend on micro-batch size, accumulation,
// packing or recompute. The balance loss is one of packed rows by its definition, and left out.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "objective/objective.h"
#include "train/step.h"
#include "train/tiny.h"

namespace temper::train {
namespace {

using layers::Precision;
using model::Recompute;
using Rows = std::vector<std::vector<testing::Document>>;

struct Outcome {
  double loss = 0, mtp_loss = 0, indexer_loss = 0, norm = 0;
  std::map<std::string, std::vector<double>> gradients;
};

Outcome run_step(Precision precision, Recompute recompute, const objective::Objective& objective, const Rows& rows) {
  std::vector<layers::MicroBatch> batches;
  model::ModelOptions options;
  options.precision = precision, options.recompute = recompute, options.logit_chunk = 24;
  options.mtp = true, options.indexer = model::IndexerUse::kTrain;
  for (const auto& row : rows) {
    batches.push_back(testing::pack_row(row));
    options.max_tokens = std::max(options.max_tokens, static_cast<int64_t>(batches.back().tokens.size()));
  }
  Session session(backend_for(precision), testing::tiny_config(), options);
  session.model().initialize(session.ctx(), 3);
  optim::Adamw adamw({});
  Step step(
      {session.ctx(), session.model(), objective, session.norm_meter(), adamw, 1.0, {.mtp = 0.3, .indexer = 0.5}});
  const StepResult result = step.compute(batches, 0);
  Outcome outcome{result.loss, result.mtp_loss, result.indexer_loss, result.norms.global, {}};
  for (const layers::Parameter* p : session.model().parameters())
    if (p->trainable) outcome.gradients[p->name] = testing::to_host(session.ctx(), p->grad);
  return outcome;
}

struct Distance {
  double loss = 0,
         gradient =
             0;  // relative, of the loss that moved most; the gradient of all parameters as one vector, in the 2-norm
  double worst_tensor = 0;  // the largest relative difference of one parameter's gradient, in the 2-norm
};

Distance distance(const Outcome& a, const Outcome& b) {
  const auto relative = [](double x, double y) { return std::abs(x - y) / std::abs(y); };
  Distance result{
      std::max({relative(a.loss, b.loss), relative(a.mtp_loss, b.mtp_loss), relative(a.indexer_loss, b.indexer_loss)}),
      0, 0};
  double total = 0, total_difference = 0;
  for (const auto& [name, expected] : b.gradients) {
    const auto& actual = a.gradients.at(name);
    double square = 0, difference = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      square += expected[i] * expected[i];
      difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    }
    EXPECT_GT(square, 0) << name << " has no gradient: the test would not see it";
    result.worst_tensor = std::max(result.worst_tensor, std::sqrt(difference / square));
    total += square, total_difference += difference;
  }
  result.gradient = std::sqrt(total_difference / total);
  return result;
}

struct Case {
  const char* name;
  Precision precision;
  double tolerance;
  // Of one tensor: the three mHC scales of a layer are sums of terms that nearly cancel, so their last digits follow
  // the order of the sum; fp64 shows that nothing else does.
  double tensor_tolerance;
};

class InvarianceTest : public ::testing::TestWithParam<Case> {
 protected:
  // Lengths on both sides of the window and of the compression rates.
  const std::vector<testing::Document> docs_ =
      testing::random_documents({37, 5, 50, 2, 21, 33}, testing::tiny_config().vocab_size, 11);
  const std::unique_ptr<objective::Objective> sft_ = objective::make_objective("sft", {});
  Outcome run(const Rows& rows, Recompute recompute = Recompute::kNone) const {
    return run_step(GetParam().precision, recompute, *sft_, rows);
  }
  void expect_same(const Outcome& outcome) const {
    const Distance d = distance(outcome, base_);
    EXPECT_LE(d.loss, GetParam().tolerance);
    EXPECT_LE(d.gradient, GetParam().tolerance);
    EXPECT_LE(d.worst_tensor, GetParam().tensor_tolerance);
  }
  const Outcome base_ = run({docs_});
};

TEST_P(InvarianceTest, OneDocumentPerMicroBatch) {
  Rows rows;
  for (const auto& document : docs_) rows.push_back({document});
  expect_same(run(rows));
}

TEST_P(InvarianceTest, OtherPackingAndOrder) {
  expect_same(run({{docs_[5], docs_[1], docs_[2]}, {docs_[3], docs_[4], docs_[0]}}));
}

TEST_P(InvarianceTest, Recompute) {
  expect_same(run({docs_}, Recompute::kBlock));
  expect_same(run({docs_}, Recompute::kFull));
}

TEST_P(InvarianceTest, TheMeasureSeesAChange) {
  auto changed = docs_;
  changed[2][7] = (changed[2][7] + 1) % static_cast<int32_t>(testing::tiny_config().vocab_size);
  EXPECT_GT(distance(run({changed}), base_).gradient, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Precisions, InvarianceTest,
                         ::testing::Values(Case{"fp32", Precision::kFp32, 1e-6, 1e-4},
                                           Case{"fp64", Precision::kFp64, 1e-13, 1e-12}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace temper::train
