#include "train/progress.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <algorithm>

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

TEST(ProgressTest, LineHasUnitsAndPeak) {
  EXPECT_EQ(progress_line(report_of_step(120), kScale, 3725),
            "step 120/800  ETA 1:02:05  loss 2.3140  grad norm 0.823  lr 3.00e-04  12346 tokens/s  MFU 31.2% of 1.00 "
            "TFLOP/s (bf16, measured)  memory 3.00 MiB, plan 2.00 MiB");
  EXPECT_TRUE(progress_line(report_of_step(1), kScale, 65.4).starts_with("step 1/800  ETA 1:05  loss"));
}

TEST(ProgressTest, TroubleIsCountedEarlyInTheLine) {
  StepReport report = report_of_step(7);
  report.num_skipped = 2, report.num_incidents = 3;
  EXPECT_TRUE(progress_line(report, kScale, 5).starts_with("step 7/800  ETA 0:05  skipped 2  incidents 3  loss"));
}

TEST(ProgressTest, PlainLinesEveryLogEveryStepsAndTheLastAndEverySkip) {
  std::FILE* file = std::tmpfile();
  Progress progress(file, kScale, 300);
  for (int64_t step = 1; step <= 800; ++step) {
    StepReport report = report_of_step(step);
    report.skipped = step == 301;
    report.num_skipped = step >= 301;
    progress.update(report, 0);
    progress.note("");
  }
  std::rewind(file);
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);
  for (const char* part : {"step 300/800  ETA 0:00  loss", "\nstep 301/800  ETA 0:00  SKIPPED  skipped 1  loss",
                           "\nstep 600/800  ETA 0:00  skipped 1  loss", "\nstep 800/800"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

// What two steps write to a terminal of so many columns that ends while a line is open.
std::string on_terminal(unsigned short columns) {
  int ours = -1, theirs = -1;
  winsize size{};
  size.ws_col = columns;
  EXPECT_EQ(openpty(&ours, &theirs, nullptr, nullptr, &size), 0);
  std::FILE* stream = fdopen(theirs, "w");
  {
    Progress progress(stream, kScale, 1);
    progress.update(report_of_step(1), 0);
    progress.update(report_of_step(2), 0);
  }
  std::string text(4096, '\0');
  text.resize(static_cast<size_t>(std::max<ssize_t>(read(ours, text.data(), text.size()), 0)));
  std::fclose(stream);
  close(ours);
  return text;
}

TEST(ProgressTest, ATerminalHasOneLineThatIsEndedWithTheRun) {
  EXPECT_EQ(on_terminal(26), "\rstep 1/800  ETA 0:00  los\x1b[K\rstep 2/800  ETA 0:00  los\x1b[K\r\n");
}

TEST(ProgressTest, ATerminalWithoutASizeIsThatOfALauncherAndGetsWholeLines) {
  const std::string text = on_terminal(0);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << text;
  EXPECT_NE(text.find("plan 2.00 MiB"), std::string::npos) << text;
}

}  // namespace
}  // namespace temper::train
