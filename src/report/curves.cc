#include "report/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "base/error.h"

namespace temper::report {
namespace {

namespace fs = std::filesystem;
using Points = std::vector<std::pair<double, double>>;

constexpr size_t kSmoothFrom = 100, kMaxBuckets = 500;
constexpr double kLogFactor = 8;

// How a field is shown; one that is not here stands under its own name.
struct FieldLook {
  const char* field;
  const char* title;
  bool from_zero;
  double unit = 1;
};

constexpr double kMebibyte = 1 << 20;
constexpr std::array kLooks = {
    FieldLook{"loss", "loss (nats per trained token)", false},
    FieldLook{"grad_norm", "gradient norm", false},
    FieldLook{"learning_rate", "learning rate", true},
    FieldLook{"tokens_per_second", "tokens per second", true},
    FieldLook{"mfu", "MFU (share of the peak)", true},
    FieldLook{"mean_token_accuracy", "share of trained tokens that were the most likely one", true},
    FieldLook{"update_ratio", "size of the update / size of the weights", true},
    FieldLook{"expert_overload", "largest load of an expert / mean load", false},
    FieldLook{"dead_experts", "experts that no token of the step chose", true},
    FieldLook{"router_entropy", "router entropy (nats)", false},
    FieldLook{"balance_loss", "balance loss", false},
    FieldLook{"mtp_loss", "prediction block's loss (nats per trained token)", false},
    FieldLook{"indexer_loss", "indexer's loss (nats)", false},
    FieldLook{"swiglu_clamp/share", "share of clamped activations", true},
    FieldLook{"memory_bytes", "memory, high mark (MiB)", true, kMebibyte},
};

FieldLook look_of(const std::string& field) {
  for (const FieldLook& look : kLooks) {
    if (field == look.field) return look;
  }
  return {field.c_str(), field.c_str(), false};
}

struct Unit {
  double size;
  const char* name;
};

Unit token_unit(double most) {
  if (most >= 2e9) return {1e9, "billions of tokens"};
  if (most >= 2e6) return {1e6, "millions of tokens"};
  return most >= 2e3 ? Unit{1e3, "thousands of tokens"} : Unit{1, "tokens"};
}

Unit time_unit(double most_seconds) {
  if (most_seconds >= 2 * 86400) return {86400, "days since the start of the run"};
  if (most_seconds >= 2 * 3600) return {3600, "hours since the start of the run"};
  return most_seconds >= 180 ? Unit{60, "minutes since the start of the run"}
                             : Unit{1, "seconds since the start of the run"};
}

// Places the points of one run on the axis.
class Placement {
 public:
  Placement(const NamedRun& run, XAxis axis) : axis_(axis) {
    if (axis == XAxis::kTokens) {
      for (const Point& point : run.log.at("num_tokens")) tokens_[point.step] = point.value;
      if (tokens_.empty())
        fail(ErrorCode::kInvalidArgument, "{} has no num_tokens; choose another x axis", run.log.path.string());
      most_ = tokens_.rbegin()->second;
    } else if (axis == XAxis::kWallTime) {
      start_ = INFINITY;
      for (const auto& [field, points] : run.log.series) {
        for (const Point& point : points) {
          start_ = std::min(start_, point.wall_time);
          most_ = std::max(most_, point.wall_time);
        }
      }
      if (!(start_ > 0))
        fail(ErrorCode::kInvalidArgument, "{} has lines without wall_time; choose another x axis",
             run.log.path.string());
      most_ -= start_;
    }
  }

  double operator()(const Point& point) const {
    if (axis_ == XAxis::kStep) return static_cast<double>(point.step);
    if (axis_ == XAxis::kWallTime) return point.wall_time - start_;
    // A line of held-out loss has no count of its own: that of the last step before it.
    const auto after = tokens_.upper_bound(point.step);
    return after == tokens_.begin() ? 0 : std::prev(after)->second;
  }

  double most() const { return most_; }

 private:
  XAxis axis_;
  std::map<int64_t, double> tokens_;
  double start_ = 0, most_ = 0;
};

Points place(const std::vector<Point>& series, const Placement& x, double x_unit, double y_unit) {
  Points points;
  points.reserve(series.size());
  for (const Point& point : series) points.emplace_back(x(point) / x_unit, point.value / y_unit);
  return points;
}

bool spans_a_log_scale(const std::vector<Curve>& curves) {
  double low = INFINITY, high = 0;
  for (const Curve& curve : curves) {
    for (const auto& [x, y] : curve.points) low = std::min(low, y), high = std::max(high, y);
  }
  return low > 0 && high >= kLogFactor * low;
}

void add_training(Panel& panel, const std::string& name, int color, Points points) {
  if (points.empty()) return;
  Curve line{name, color, CurveStyle::kLine, {}};
  if (points.size() >= kSmoothFrom) {
    line.points = thinned(running_mean(points, points.size() / 50 + 1), kMaxBuckets);
    panel.curves.push_back({"", color, CurveStyle::kFaint, thinned(points, kMaxBuckets)});
  } else {
    line.points = std::move(points);
  }
  panel.curves.push_back(std::move(line));
}

// The last `num_parts` parts of a path, or "." of an empty one.
std::string tail_of(const fs::path& path, size_t num_parts) {
  const std::vector<fs::path> parts(path.begin(), path.end());
  fs::path tail;
  for (size_t i = parts.size() - std::min(num_parts, parts.size()); i < parts.size(); ++i) tail /= parts[i];
  return tail.empty() ? "." : tail.string();
}

}  // namespace

std::vector<NamedRun> read_runs(const std::vector<fs::path>& paths) {
  std::vector<fs::path> whole;
  for (const fs::path& path : paths) {
    const fs::path normal = fs::absolute(path).lexically_normal();
    whole.push_back(normal.has_filename() ? normal : normal.parent_path());
  }
  // The name of a log says nothing about the run, if its directory does.
  std::vector<fs::path> directories;
  for (const fs::path& path : whole) directories.push_back(fs::is_directory(path) ? path : path.parent_path());
  if (std::set<fs::path>(directories.begin(), directories.end()).size() == whole.size()) whole = directories;
  size_t num_parts = 1, longest = 1;
  for (const fs::path& path : whole)
    longest = std::max(longest, static_cast<size_t>(std::distance(path.begin(), path.end())));
  for (; num_parts < longest; ++num_parts) {
    std::set<std::string> names;
    for (const fs::path& path : whole) names.insert(tail_of(path, num_parts));
    if (names.size() == whole.size()) break;
  }
  std::vector<NamedRun> runs;
  for (size_t i = 0; i < paths.size(); ++i) runs.push_back({tail_of(whole[i], num_parts), read_run_log(paths[i])});
  return runs;
}

Panel make_panel(const std::vector<NamedRun>& runs, const std::string& field, XAxis axis) {
  std::vector<Placement> placements;
  double most = 0;
  for (const NamedRun& run : runs) most = std::max(most, placements.emplace_back(run, axis).most());
  const Unit x_unit = axis == XAxis::kStep     ? Unit{1, "step"}
                      : axis == XAxis::kTokens ? token_unit(most)
                                               : time_unit(most);
  const FieldLook look = look_of(field);
  Panel panel;
  panel.title = look.title;
  panel.x_title = x_unit.name;
  panel.from_zero = look.from_zero;
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunLog& log = runs[i].log;
    const int color = static_cast<int>(i);
    add_training(panel, runs[i].name, color, place(log.at(field), placements[i], x_unit.size, look.unit));
    Points heldout = place(log.at("eval_" + field), placements[i], x_unit.size, look.unit);
    if (heldout.empty()) continue;
    // One run alone has a colour to spare.
    panel.curves.push_back(
        {runs[i].name + ", held out", runs.size() == 1 ? 1 : color, CurveStyle::kDots, thinned(heldout, kMaxBuckets)});
  }
  panel.log_y = !look.from_zero && spans_a_log_scale(panel.curves);
  return panel;
}

Panel make_group_panel(const RunLog& log, const std::string& group, const std::string& title,
                       const std::string& prefix) {
  constexpr size_t kMaxInLegend = 8;
  const std::string begin = group + "/" + prefix;
  Panel panel;
  panel.title = title;
  panel.x_title = "step";
  for (const auto& [field, series] : log.series) {
    if (!field.starts_with(begin)) continue;
    Points points;
    for (const Point& point : series) points.emplace_back(static_cast<double>(point.step), point.value);
    const int color = static_cast<int>(panel.curves.size());
    panel.curves.push_back({field.substr(begin.size()), color, CurveStyle::kLine,
                            thinned(running_mean(points, points.size() / 50 + 1), kMaxBuckets)});
  }
  if (panel.curves.size() < 2) panel.curves.clear();
  if (panel.curves.size() > kMaxInLegend) {
    for (Curve& curve : panel.curves) curve.title.clear();
  }
  panel.log_y = spans_a_log_scale(panel.curves);
  return panel;
}

Points running_mean(const Points& points, size_t width) {
  std::vector<double> sums(points.size() + 1, 0);
  for (size_t i = 0; i < points.size(); ++i) sums[i + 1] = sums[i] + points[i].second;
  Points means;
  means.reserve(points.size());
  for (size_t i = 0; i < points.size(); ++i) {
    // A curve falls steeply where it begins, and is flat and noisy where it ends.
    const size_t before = std::min(width / 2, i), after = std::min(before, points.size() - 1 - i);
    means.emplace_back(points[i].first,
                       (sums[i + after + 1] - sums[i - before]) / static_cast<double>(before + after + 1));
  }
  return means;
}

Points thinned(const Points& points, size_t num_buckets) {
  if (points.size() <= 2 * num_buckets) return points;
  Points out;
  const auto lower = [](const auto& a, const auto& b) { return a.second < b.second; };
  for (size_t bucket = 0; bucket < num_buckets; ++bucket) {
    const auto begin = points.begin() + static_cast<int64_t>(bucket * points.size() / num_buckets);
    const auto end = points.begin() + static_cast<int64_t>((bucket + 1) * points.size() / num_buckets);
    auto [low, high] = std::minmax_element(begin, end, lower);
    if (high < low) std::swap(low, high);
    out.push_back(*low);
    if (high != low) out.push_back(*high);
  }
  return out;
}

}  // namespace temper::report
