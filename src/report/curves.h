// From the logs of runs to the panels of a figure: which axis, how much smoothing, which scale.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/figure.h"
#include "report/run_log.h"

namespace temper::report {

enum class XAxis { kStep, kTokens, kWallTime };

struct NamedRun {
  std::string name;
  RunLog log;
};

// Reads the runs; names are the last parts of their directories, as many as tell them apart.
std::vector<NamedRun> read_runs(const std::vector<std::filesystem::path>& paths);

// One panel: `field` of every run that has it, one colour a run, and `eval_<field>` as dots. A curve of 100 points or
// more is drawn faintly under its running mean over a fiftieth of it. The scale is logarithmic where all values are
// positive and span a factor of 8, except for rates and speeds, which begin at 0. No curves: no run has the field.
// Throws kInvalidArgument for a run that lacks what the axis needs.
Panel make_panel(const std::vector<NamedRun>& runs, const std::string& field, XAxis axis);

// One panel: every field "<group>/<prefix><x>" of a run as a curve called <x>, smoothed; in the legend where there are
// at most 8. No curves where there are fewer than two.
Panel make_group_panel(const RunLog& log, const std::string& group, const std::string& title,
                       const std::string& prefix = "");

// The mean of the `width` values around each one (at the start fewer, as many before as after; at the end those
// before).
std::vector<std::pair<double, double>> running_mean(const std::vector<std::pair<double, double>>& points, size_t width);

// At most 2 * num_buckets points that look the same: the lowest and the highest of each stretch.
std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points,
                                               size_t num_buckets);

}  // namespace temper::report
