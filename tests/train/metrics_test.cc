#include "train/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/error.h"
#include "base/scratch_dir.h"

namespace temper::train {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

StepReport report_of_step(int64_t step) {
  StepReport report;
  report.step = step;
  report.result.loss = 2.31401, report.result.norms.global = 0.8234, report.result.learning_rate = 3e-4;
  report.result.update = optim::UpdateNorms{};
  report.result.update->global = {0.5, 250, 4};
  report.result.moe_L.resize(2);
  report.result.moe_L[1].load_E = {3, 0, 1, 0};
  report.sources["a.jsonl"] = {70, 40};
  report.tokens_per_second = 12345.6, report.mfu = 0.3125;
  report.step_seconds = 1, report.data_seconds = 0.125, report.result.forward_seconds = 0.25;
  report.memory_bytes = 3 << 20;
  return report;
}

std::string text_of(const fs::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class MetricsFileTest : public ::testing::Test {
 protected:
  const test::ScratchDir dir_;
  const fs::path path_ = dir_ / "metrics.jsonl";
};

TEST(MetricsLineTest, HasTheValuesOfTheStep) {
  const auto line = metrics_line(report_of_step(3));
  EXPECT_EQ(line["step"], 3);
  EXPECT_EQ(line["perplexity"], std::exp(2.31401));
  EXPECT_EQ(line["params_norm"], 250);
  EXPECT_EQ(line["update_ratio"], 0.002);
  EXPECT_EQ(line["update_rms"], 0.25);
  EXPECT_EQ(line["tokens_by_source/a.jsonl"], 70);
  EXPECT_EQ(line["trained_tokens_by_source/a.jsonl"], 40);
  EXPECT_EQ(line["expert_overload"], 3);
  EXPECT_EQ(line["dead_experts"], 2);
  EXPECT_EQ(line["moe/dead_experts_layer_1"], 2);
  EXPECT_FALSE(line.contains("moe/dead_experts_layer_0")) << "routed by token id";
  EXPECT_EQ(line["other_ms"], 625) << "what no part of the step claims";
}

TEST(MetricsLineTest, ASkippedStepHasNoUpdateAndNullsForWhatIsNotFinite) {
  StepReport report = report_of_step(3);
  report.result.update.reset();
  report.num_skipped = 1;
  auto line = metrics_line(report);
  EXPECT_FALSE(line.contains("update_ratio"));
  EXPECT_FALSE(line.contains("params_norm/router"));
  EXPECT_TRUE(line.contains("grad_norm"));
  EXPECT_EQ(line["skipped_steps"], 1);
  report.result.loss = std::numeric_limits<double>::quiet_NaN();
  line = metrics_line(report);
  EXPECT_FALSE(line.contains("grad_norm") || line.contains("dead_experts")) << "which were not computed";
  EXPECT_THAT(line.dump(), HasSubstr("\"loss\":null"));
}

TEST(MetricsLineTest, FieldsOfTheMachineAreKnownByName) {
  const auto line = metrics_line(report_of_step(1));
  std::vector<std::string> machine;
  for (const auto& [name, value] : line.items())
    if (is_machine_field(name)) machine.push_back(name);
  EXPECT_THAT(machine, ::testing::ElementsAre("tokens_per_second", "mfu", "step_ms", "data_ms", "forward_ms",
                                              "backward_ms", "optimizer_ms", "other_ms", "checkpoint_ms",
                                              "memory_bytes", "memory_plan_bytes", "wall_time"));
  EXPECT_FALSE(is_machine_field("tokens_by_source/step_ms")) << "a file may be called anything";
}

// Every field of a line stands in docs/metrics.md, and nothing else does.
TEST(MetricsLineTest, FieldsAreDocumented) {
  StepReport report = report_of_step(1);
  report.chain = "0123456789abcdef";
  std::string page = text_of(TEMPER_SOURCE_DIR "/docs/metrics.md");
  for (const auto& line : {metrics_line(report), metrics_line(EvalReport{})})
    for (const auto& [name, value] : line.items()) {
      std::string documented = name.substr(0, name.find('/'));
      if (name.starts_with("moe/")) documented = name.substr(0, name.rfind('_')) + "_<i>";
      if (name.starts_with("swiglu_clamp/")) documented = name;
      EXPECT_THAT(page, HasSubstr("`" + documented)) << name;
    }
}

TEST_F(MetricsFileTest, GoesOnWhereItIsToldAndForgetsWhatFollowed) {
  int64_t after_two = 0;
  {
    MetricsFile file(path_);
    for (const int64_t step : {1, 2, 3}) {
      file.write(metrics_line(report_of_step(step)));
      if (step == 2) after_two = file.position();
    }
    file.write(metrics_line(EvalReport{3, 1, 0.5, 10}));
  }
  MetricsFile file(path_, after_two);
  file.write(metrics_line(EvalReport{2, 1.5, 0.5, 10}));
  EXPECT_TRUE(file.sync());
  EXPECT_EQ(file.take_news(), "");
  std::istringstream text(text_of(path_));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1]["step"], 2);
  EXPECT_EQ(lines[2]["eval_perplexity"], std::exp(1.5));
}

TEST_F(MetricsFileTest, ATornLastLineIsCutOffAndTold) {
  std::ofstream(path_) << "{\"step\":1}\n{\"st";
  MetricsFile file(path_, 30);
  EXPECT_THAT(file.take_news(), HasSubstr("its last 15 bytes are gone"));
  EXPECT_EQ(file.take_news(), "");
  EXPECT_EQ(text_of(path_), "{\"step\":1}\n");
}

TEST_F(MetricsFileTest, ThatCannotBeWrittenIsRefused) {
  EXPECT_THROW(MetricsFile(dir_ / "none" / "metrics.jsonl"), Error);
}

TEST(PeakMemoryTest, GrowsWithUse) {
  reset_peak_resident();
  const int64_t before = peak_resident_bytes();
  EXPECT_GT(before, 0);
  std::vector<char> block(64 << 20, 1);
  EXPECT_GE(peak_resident_bytes(), before + (60 << 20)) << block[block.size() / 2];
}

}  // namespace
}  // namespace temper::train
