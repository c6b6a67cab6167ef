// The figures that stand at the head of a report, in words and numbers.
#pragma once

#include <string>
#include <vector>

#include "report/html.h"
#include "report/run_files.h"

namespace temper::report {

// The last part of the run's path.
std::string run_name(const RunFiles& run);

// "step 300 of 4500, 5:12 in steps, 2026-11-22 10:29 to 10:35 UTC".
std::string progress_text(const RunFiles& run);

// Shape and size of the model in a line; empty where no configuration is there.
std::string model_text(const RunFiles& run);

// Loss and held-out loss (first, last, best), tokens, speed, MFU with its peak where the run names it, memory against
// plan, skipped steps, dead experts: those that the run has logged. Medians are over the steps.
std::vector<Row> key_figures(const RunFiles& run);

struct TimeShare {
  std::string name;
  double seconds = 0;
  double share = 0;  // of the sum of all
};

// What the steps spent their time on, over the whole run; empty where nothing is logged.
std::vector<TimeShare> time_shares(const RunLog& log);

// Whether a field has a value other than 0.
bool is_used(const RunLog& log, const std::string& field);

// "1:02:03", "2:03", "4.5 s".
std::string duration_text(double seconds);

}  // namespace temper::report
