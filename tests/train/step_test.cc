#include "train/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "base/error.h"
#include "train/evaluate.h"
#include "train/tiny.h"

namespace temper::train {
namespace {

using ::testing::HasSubstr;
using Values = std::map<std::string, std::vector<double>>;

model::ModelOptions tiny_options(layers::Precision precision = layers::Precision::kFp64) {
  model::ModelOptions options;
  options.precision = precision, options.max_tokens = 64;
  return options;
}

class StepTest : public ::testing::Test {
 protected:
  Values values(View layers::Parameter::*member) {
    Values out;
    for (const layers::Parameter* p : session_.model().parameters())
      if (p->trainable) out[p->name] = testing::to_host(session_.ctx(), p->*member);
    return out;
  }

  Session session_{backend::cpu_reference(), testing::tiny_config(), tiny_options()};
  std::unique_ptr<objective::Objective> sft_ = objective::make_objective("sft", {});
  optim::AdamwOptions adamw_options_{0.9, 0.95, 1e-8, 0.1};
  optim::Adamw adamw_{adamw_options_};
  double max_grad_norm_ = 0.01;
  Step step_{{session_.ctx(), session_.model(), *sft_, session_.norm_meter(), adamw_, max_grad_norm_}};
  std::vector<layers::MicroBatch> batches_ = {
      testing::pack_row(testing::random_documents({20, 30}, testing::tiny_config().vocab_size, 5))};

  void SetUp() override { session_.model().initialize(session_.ctx(), 1); }
};

TEST_F(StepTest, UpdateIsAdamwOfTheClippedGradient) {
  Values w = values(&layers::Parameter::master), m = w, v = w;
  for (auto* moments : {&m, &v})
    for (auto& [name, list] : *moments) std::fill(list.begin(), list.end(), 0.0);
  for (int t = 1; t <= 2; ++t) {
    const double lr = 1e-2 * t;
    step_.compute(batches_, lr);
    const StepResult result = step_.update();
    const Values grad = values(&layers::Parameter::grad), after = values(&layers::Parameter::master);
    double sum = 0;
    for (const auto& [name, g] : grad)
      for (double x : g) sum += x * x;
    ASSERT_NEAR(result.norms.global, std::sqrt(sum), 1e-12 * std::sqrt(sum));
    ASSERT_GT(result.norms.global, max_grad_norm_);
    const double scale = max_grad_norm_ / (std::sqrt(sum) + 1e-6);
    for (const layers::Parameter* p : session_.model().parameters()) {
      if (!p->trainable) continue;
      for (size_t i = 0; i < w[p->name].size(); ++i) {
        const double g = scale * grad.at(p->name)[i];
        double& mi = m[p->name][i] = 0.9 * m[p->name][i] + 0.1 * g;
        double& vi = v[p->name][i] = 0.95 * v[p->name][i] + 0.05 * g * g;
        const double m_hat = mi / (1 - std::pow(0.9, t)), v_hat = vi / (1 - std::pow(0.95, t));
        double& wi = w[p->name][i];
        wi = wi * (1 - lr * (p->decay ? 0.1 : 0)) - lr * m_hat / (std::sqrt(v_hat) + 1e-8);
        ASSERT_NEAR(after.at(p->name)[i], wi, 1e-12) << p->name << " " << i << " step " << t;
      }
    }
  }
}

TEST_F(StepTest, ReportsWhatItDid) {
  step_.compute(batches_, 1e-3);
  const StepResult result = step_.update();
  EXPECT_EQ(result.num_tokens, 50);
  EXPECT_EQ(result.num_targets, 48);
  EXPECT_EQ(result.learning_rate, 1e-3);
  EXPECT_NEAR(result.loss, std::log(static_cast<double>(testing::tiny_config().vocab_size)), 0.5);
  EXPECT_GT(result.model_flops, 0);
  const HeldoutResult heldout = evaluate(session_.ctx(), session_.model(), batches_);
  EXPECT_EQ(heldout.num_targets, 48);
  EXPECT_LT(heldout.loss, result.loss);  // the step went downhill on its own batch
}

TEST_F(StepTest, TellsHowFarTheUpdateWent) {
  Step step({session_.ctx(),
             session_.model(),
             *sft_,
             session_.norm_meter(),
             adamw_,
             max_grad_norm_,
             {},
             &session_.update_meter()});
  const Values before = values(&layers::Parameter::master);
  EXPECT_FALSE(step.compute(batches_, 1e-2).update) << "nothing has moved";
  const StepResult result = step.update();
  ASSERT_TRUE(result.update);
  const auto router = static_cast<int>(optim::ParameterGroup::kRouter);
  std::array<double, 2> moved{}, weight{};  // of all, of the router
  for (const auto& [name, after] : values(&layers::Parameter::master))
    for (size_t i = 0; i < after.size(); ++i)
      for (const size_t of : {0, 1}) {
        if (of == 1 && optim::group_of(name) != optim::ParameterGroup::kRouter) continue;
        moved[of] += std::pow(after[i] - before.at(name)[i], 2), weight[of] += after[i] * after[i];
      }
  EXPECT_NEAR(result.update->global.ratio(), std::sqrt(moved[0] / weight[0]), 1e-12);
  EXPECT_NEAR(result.update->group[router].ratio(), std::sqrt(moved[1] / weight[1]), 1e-12);
  EXPECT_NEAR(result.update->global.weight, std::sqrt(weight[0]), 1e-10);
  EXPECT_GT(moved[1], 0);
}

TEST_F(StepTest, CountsTheExpertsOfAllItsMicroBatches) {
  const std::vector<model::MoeStatistics> one = step_.compute(batches_, 1e-3).moe_L;
  batches_.push_back(batches_[0]);
  const std::vector<model::MoeStatistics> two = step_.compute(batches_, 1e-3).moe_L;
  ASSERT_EQ(one.size(), two.size());
  for (size_t l = 0; l < one.size(); ++l) {
    EXPECT_EQ(two[l].num_elements, 2 * one[l].num_elements);
    for (size_t e = 0; e < one[l].load_E.size(); ++e) EXPECT_EQ(two[l].load_E[e], 2 * one[l].load_E[e]);
  }
}

TEST_F(StepTest, RefusesAStepWithoutTrainedTokens) {
  for (auto& weight : batches_[0].weights) weight = 0;
  EXPECT_THROW(step_.compute(batches_, 1e-3), Error);
}

TEST_F(StepTest, ComputeLeavesTheWeightsAloneAndCanBeRepeated) {
  const Values before = values(&layers::Parameter::master);
  const StepResult once = step_.compute(batches_, 1e-3), again = step_.compute(batches_, 1e-3);
  EXPECT_TRUE(once.finite());
  EXPECT_EQ(once.loss, again.loss);
  EXPECT_EQ(once.norms.global, again.norms.global);
  EXPECT_EQ(values(&layers::Parameter::master), before);
}

TEST_F(StepTest, ValuesThatAreNotFiniteAreTold) {
  layers::Parameter* norm = nullptr;
  for (layers::Parameter* p : session_.model().parameters())
    if (p->name == "model.norm.weight") norm = p;
  ASSERT_NE(norm, nullptr);
  double& weight = norm->value.data<double>()[0];
  const double good = std::exchange(weight, std::numeric_limits<double>::quiet_NaN());
  const StepResult bad = step_.compute(batches_, 1e-3);
  EXPECT_FALSE(bad.finite());
  EXPECT_TRUE(std::isnan(bad.loss));
  weight = good;
  EXPECT_TRUE(step_.compute(batches_, 1e-3).finite()) << "a bad step leaves nothing behind";
}

TEST(SessionTest, PlannedBytesAreAllocatedBytesAndAStepAllocatesNothing) {
  static int num_allocations;
  num_allocations = 0;
  backend::Backend counting = backend::cpu_reference();
  counting.device.alloc = [](int64_t num_bytes) {
    ++num_allocations;
    return backend::cpu_reference().device.alloc(num_bytes);
  };
  for (auto recompute : {model::Recompute::kNone, model::Recompute::kBlock, model::Recompute::kFull}) {
    auto options = tiny_options();
    options.recompute = recompute;
    Session session(counting, testing::tiny_config(), options);
    EXPECT_EQ(session.allocated_bytes(), session.book().total_bytes());
    session.model().initialize(session.ctx(), 1);
    const int before = num_allocations;
    EXPECT_GT(before, 0);
    const auto sft = objective::make_objective("sft", {});
    optim::Adamw adamw({});
    Step step({session.ctx(), session.model(), *sft, session.norm_meter(), adamw, 1});
    const std::vector<layers::MicroBatch> batches(
        2, testing::pack_row(testing::random_documents({20}, testing::tiny_config().vocab_size, 5)));
    step.compute(batches, 1e-3);
    step.update();
    EXPECT_EQ(num_allocations, before);
  }
}

TEST(SessionTest, RefusesWhatDoesNotFitWithTheTable) {
  backend::Backend small = backend::cpu_reference();
  small.device.info = [] { return backend::DeviceInfo{"a small device", 1000, 1}; };
  small.device.alloc = [](int64_t) -> void* {
    ADD_FAILURE() << "allocated";
    return nullptr;
  };
  try {
    Session session(small, testing::tiny_config(), tiny_options());
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    for (const char* part : {"a small device has 1000 B free", "saved activations", "optimizer moments", "recompute"})
      EXPECT_THAT(error.what(), HasSubstr(part));
  }
}

}  // namespace
}  // namespace temper::train
