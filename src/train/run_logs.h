// The append-only logs of a run: every line goes to metrics.jsonl and to TensorBoard's event file alike.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "train/event_file.h"
#include "train/metrics.h"

namespace temper::train {

class RunLogs {
 public:
  // Bytes of each log by its file name; part of the run state.
  using Lengths = std::map<std::string, int64_t>;

  // Goes on after the first bytes of each log, which is cut back to them; a log without a length begins anew.
  // Throws kIo.
  RunLogs(const std::filesystem::path& dir, const Lengths& keep, Files& files = system_files());

  template <class Report>
  void write(const Report& report) {
    const nlohmann::ordered_json line = metrics_line(report);
    metrics_.write(line);
    events_.write(line);
  }

  Lengths lengths() const;
  // Throws kIo unless every line so far is on the disk.
  void sync();
  // What the user should be told about lines that the disk refused, or that a crash lost; once.
  std::string take_news();

 private:
  MetricsFile metrics_;
  EventFile events_;
};

}  // namespace temper::train
