#include "report/run_log.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/lines.h"
#include "report/event_reader.h"
#include "train/event_file.h"

namespace temper::report {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxLineBytes = 1 << 20;
constexpr int kMaxDepth = 8;

void add_line(RunLog& log, std::string_view line, const std::string& origin) {
  if (line.size() > kMaxLineBytes) {
    fail(ErrorCode::kCorrupt, "{}: a line of {} bytes; a line of metrics has at most {}", origin, line.size(),
         kMaxLineBytes);
  }
  const auto json = parse_json<nlohmann::ordered_json>(line, origin, kMaxDepth);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer() ||
      json["step"].get<int64_t>() < 0) {
    fail(ErrorCode::kCorrupt, "{}: expected a JSON object with an integer `step` of 0 or more, found {}", origin,
         describe_json(json));
  }
  Point point;
  point.step = json["step"].get<int64_t>();
  if (json.contains("wall_time") && json["wall_time"].is_number()) point.wall_time = json["wall_time"].get<double>();
  for (const auto& [field, value] : json.items()) {
    if (!value.is_number() || field == "step" || field == "wall_time") continue;
    point.value = value.get<double>();
    if (std::isfinite(point.value)) log.series[field].push_back(point);
  }
}

RunLog from_events(const fs::path& path) {
  const MappedFile file(path);
  RunLog log;
  log.path = path;
  const Events events =
      parse_events({reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())}, path);
  for (const auto& [tag, points] : events.scalars) {
    std::vector<Point>& series = log.series[train::event_field(tag)];
    for (const Point& point : points) {
      if (std::isfinite(point.value)) series.push_back(point);
    }
  }
  if (events.num_cut_bytes > 0) {
    log.notes.push_back(fmt::format("{}: the last record is cut short; its {} bytes are left out", path.string(),
                                    events.num_cut_bytes));
  }
  return log;
}

bool is_event_file(const fs::path& path) { return path.filename().string().find("tfevents") != std::string::npos; }

// The log of a run directory: metrics.jsonl before event files, the newest name of those.
fs::path log_in(const fs::path& directory) {
  if (fs::exists(directory / "metrics.jsonl")) return directory / "metrics.jsonl";
  fs::path newest;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    if (entry.is_regular_file() && is_event_file(entry.path()) && entry.path() > newest) newest = entry.path();
  }
  if (newest.empty()) {
    fail(ErrorCode::kNotFound, "{} holds neither metrics.jsonl nor a TensorBoard event file: is it a run's output.dir?",
         directory.string());
  }
  return newest;
}

}  // namespace

const std::vector<Point>& RunLog::at(const std::string& field) const {
  static const std::vector<Point> none;
  const auto found = series.find(field);
  return found == series.end() ? none : found->second;
}

RunLog parse_metrics(std::string_view contents, const fs::path& path) {
  RunLog log;
  log.path = path;
  const size_t whole = contents.find_last_of('\n') + 1;  // npos + 1 is 0
  for_each_line(contents.substr(0, whole), [&](std::string_view line, int64_t number) {
    add_line(log, line, fmt::format("{}:{}", path.string(), number));
  });
  if (whole == contents.size()) return log;
  try {
    add_line(log, contents.substr(whole), path.string());
  } catch (const Error&) {
    log.notes.push_back(fmt::format("{}: the last line is only half written ({} bytes); it is left out", path.string(),
                                    contents.size() - whole));
  }
  return log;
}

RunLog read_run_log(const fs::path& run) {
  if (!fs::exists(run)) fail(ErrorCode::kNotFound, "{}: no such run; give its output.dir or its log", run.string());
  const fs::path path = fs::is_directory(run) ? log_in(run) : run;
  if (is_event_file(path)) return from_events(path);
  const MappedFile file(path);
  return parse_metrics({reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())}, path);
}

}  // namespace temper::report
