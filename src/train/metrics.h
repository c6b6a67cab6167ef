// metrics.jsonl: what a run tells about each of its steps. docs/metrics.md has every field with its unit and equation.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/append_file.h"
#include "train/source_tokens.h"
#include "train/step.h"

namespace temper::train {

inline constexpr const char* kMetricsFileName = "metrics.jsonl";

// Of one step, after it. Ratios that have no peak to relate to are 0.
struct StepReport {
  int64_t step = 0;  // 1-based: number of steps done
  StepResult result;
  // Since the start of the run.
  int64_t total_tokens = 0;
  double epoch = 0;
  int64_t num_skipped = 0;    // steps that did not move the weights
  int64_t num_nonfinite = 0;  // steps whose loss or gradient was not finite
  int64_t num_incidents = 0;  // steps that left an incident bundle
  std::map<std::string, SourceTokens::Count> sources;
  std::string chain;  // 16 hexadecimal digits over all steps so far; empty: not kept

  bool skipped = false;  // this step
  // step: from asking for its data to the report. checkpoint: for how long training stood still for a run state since
  // the last report.
  double step_seconds = 0, data_seconds = 0, checkpoint_seconds = 0;
  // Many ranks: for how long the first of them waited for others in this step, by axis.
  std::vector<std::pair<std::string, double>> wait_seconds;
  std::optional<double> expert_imbalance;  // ExpertPlacement::imbalance
  double tokens_per_second = 0, mfu = 0;
  int64_t memory_bytes = 0, planned_bytes = 0;  // high mark of the process, and what the plan said
};

struct EvalReport {
  int64_t step = 0;
  double loss = 0, accuracy = 0;
  int64_t num_targets = 0;
};

// A line as it is written, in the order of docs/metrics.md; wall_time is now. A number that is not finite is written as
// null.
nlohmann::ordered_json metrics_line(const StepReport& report);
nlohmann::ordered_json metrics_line(const EvalReport& report);

// True of the fields that measure the machine (times, speeds, memory); every other field is mathematics, and equal bit
// for bit in a run that is repeated or resumed.
bool is_machine_field(std::string_view name);

// The file, one JSON object a line. A disk that refuses lines does not stop the run (base/append_file.h).
class MetricsFile {
 public:
  // Goes on after the first keep_bytes of a file, 0: replaces it. Where a crash left less than that, after its last
  // whole line. Throws kIo.
  explicit MetricsFile(const std::filesystem::path& path, int64_t keep_bytes = 0, Files& files = system_files());
  void write(const nlohmann::ordered_json& line) { file_->write(line.dump() + "\n"); }
  bool sync() { return file_->sync(); }
  int64_t position() const { return file_->position(); }
  // What the user should be told about lines that the disk refused, or that a crash lost; once.
  std::string take_news();

 private:
  std::unique_ptr<AppendFile> file_;
  std::string news_;
};

// Largest resident size of this process, in bytes, since its start or the last reset; 0 where the system does not tell.
int64_t peak_resident_bytes();
void reset_peak_resident();

}  // namespace temper::train
