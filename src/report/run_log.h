// The numbers that a run has logged, as one series per field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace temper::report {

struct Point {
  int64_t step = 0;
  double wall_time = 0;  // seconds since the epoch of Unix
  double value = 0;
};

struct RunLog {
  std::filesystem::path path;                        // of the file
  std::map<std::string, std::vector<Point>> series;  // by the names of metrics.jsonl, each in the order of the file
  std::vector<std::string> notes;                    // what the user should be told, such as a last line cut short

  // An empty series where the run has no such field.
  const std::vector<Point>& at(const std::string& field) const;
};

// Reads what `run` is: a run directory with metrics.jsonl, or without one an event file; a .jsonl file; or an event
// file of TensorBoard, whoever wrote it. Throws kNotFound, and kCorrupt with the line or the byte.
RunLog read_run_log(const std::filesystem::path& run);

// metrics.jsonl: JSON objects, one a line, each with an integer `step`; other finite numbers become points, anything
// else is passed over. A line that is not such an object is kCorrupt; only a last line without its line end may be
// broken, which is noted. A line longer than 1 MiB is refused.
RunLog parse_metrics(std::string_view contents, const std::filesystem::path& path);

}  // namespace temper::report
