// What a run says on the terminal: a live line, and lines that stay.
#pragma once

#include <cstdio>
#include <string>

#include "backend/device.h"
#include "train/metrics.h"

namespace temper::train {

// What every line of a run relates to.
struct RunScale {
  int64_t total_steps = 0;
  backend::Peak peak;
  int64_t planned_bytes = 0;
};

// One line, cut to the terminal's width, that is redrawn after each step where `stream` is a terminal, and a plain line
// every log_every steps elsewhere. The line of a step that did not move the weights always stays.
class Progress {
 public:
  // stream null: says nothing.
  Progress(std::FILE* stream, RunScale scale, int64_t log_every);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // ends the live line, so that an error stands on its own
  void update(const StepReport& report, double seconds_left);
  // A line that stays, above the live one. Empty: nothing.
  void note(const std::string& text);
  // Ends the live line.
  void finish();

 private:
  std::FILE* stream_;
  RunScale scale_;
  int64_t log_every_;
  bool terminal_, line_open_ = false;
};

// "step 120/800  ETA 1:05  loss 2.3140 ..." without a line end; with the counts of skipped steps and incidents where
// there are any.
std::string progress_line(const StepReport& report, const RunScale& scale, double seconds_left);

}  // namespace temper::train
