// What a run reports: a line of metrics.jsonl per step and a live line on the terminal.
#pragma once

#include <cstdio>
#include <filesystem>
#include <string>

#include "train/step.h"

namespace temper::train {

// Of one step, after it. Ratios that have no peak to relate to are 0.
struct StepReport {
  int64_t step = 0;  // 1-based: number of steps done
  StepResult result;
  int64_t total_tokens = 0;  // since the start of the run
  double epoch = 0;
  double step_seconds = 0, data_seconds = 0;
  double tokens_per_second = 0, mfu = 0;
  int64_t memory_bytes = 0;  // high mark of the process
};

// What every line of a run relates to.
struct RunScale {
  int64_t total_steps = 0;
  backend::Peak peak;
  int64_t planned_bytes = 0;
};

// metrics.jsonl: one JSON object per line, names as in TRL and Hugging Face: step, loss, mtp_loss, balance_loss and
// indexer_loss (unweighted; 0 where there is none), expert_overload (see StepResult), grad_norm (and
// grad_norm/<group>), learning_rate, mean_token_accuracy, num_tokens (all so far), epoch, tokens_per_second, mfu,
// step_ms, data_ms, forward_ms, backward_ms, optimizer_ms, memory_bytes, wall_time (seconds since the epoch of Unix).
// Lines of held-out loss have step, eval_loss, eval_mean_token_accuracy, eval_num_tokens. Every line is flushed when it
// is written.
class MetricsFile {
 public:
  // Replaces a file of that name. Throws kIo.
  explicit MetricsFile(const std::filesystem::path& path);
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;
  ~MetricsFile();
  void write(const StepReport& report);
  void write_eval(int64_t step, double loss, double accuracy, int64_t num_targets);

 private:
  void write_line(const std::string& line);
  std::filesystem::path path_;
  std::FILE* file_;
};

// One line, cut to the terminal's width, that is redrawn after each step where `stream` is a terminal, and a plain line
// every log_every steps elsewhere.
class Progress {
 public:
  Progress(std::FILE* stream, RunScale scale, int64_t log_every);
  void update(const StepReport& report, double seconds_left);
  // A line that stays, above the live one.
  void note(const std::string& text);
  // Ends the live line.
  void finish();

 private:
  std::FILE* stream_;
  RunScale scale_;
  int64_t log_every_;
  bool terminal_, line_open_ = false;
};

// "step 120/800  ETA 1:05  loss 2.3140 ..." without a line end.
std::string progress_line(const StepReport& report, const RunScale& scale, double seconds_left);

// Largest resident size of this process, in bytes, since its start or the last reset; 0 where the system does not tell.
int64_t peak_resident_bytes();
void reset_peak_resident();

}  // namespace temper::train
