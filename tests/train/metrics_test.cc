#include "train/metrics.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace temper::train {
namespace {

StepReport report_of_step(int64_t step) {
  StepReport report;
  report.step = step;
  report.result.loss = 2.31401, report.result.norms.global = 0.8234, report.result.learning_rate = 3e-4;
  report.tokens_per_second = 12345.6, report.mfu = 0.3125;
  report.memory_bytes = 3 << 20;
  return report;
}

const RunScale kScale = {800, {1e12, "1.00 TFLOP/s (bf16, measured)"}, 2 << 20};

TEST(MetricsTest, ProgressLineHasUnitsAndPeak) {
  EXPECT_EQ(progress_line(report_of_step(120), kScale, 3725),
            "step 120/800  ETA 1:02:05  loss 2.3140  grad norm 0.823  lr 3.00e-04  12346 tokens/s  MFU 31.2% of 1.00 "
            "TFLOP/s (bf16, measured)  memory 3.00 MiB, plan 2.00 MiB");
  EXPECT_TRUE(progress_line(report_of_step(1), kScale, 65.4).starts_with("step 1/800  ETA 1:05  "));
}

TEST(MetricsTest, PlainLinesEveryLogEveryStepsAndTheLast) {
  std::FILE* file = std::tmpfile();
  Progress progress(file, kScale, 300);
  for (int64_t step = 1; step <= 800; ++step) progress.update(report_of_step(step), 0);
  std::rewind(file);
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  for (const char* part : {"step 300/800", "\nstep 600/800", "\nstep 800/800"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(MetricsTest, FileThatCannotBeWrittenIsRefused) {
  EXPECT_THROW(MetricsFile("/no/such/directory/metrics.jsonl"), Error);
}

TEST(MetricsTest, PeakMemoryGrowsWithUse) {
  reset_peak_resident();
  const int64_t before = peak_resident_bytes();
  EXPECT_GT(before, 0);
  std::vector<char> block(64 << 20, 1);
  EXPECT_GE(peak_resident_bytes(), before + (60 << 20)) << block[block.size() / 2];
}

}  // namespace
}  // namespace temper::train
