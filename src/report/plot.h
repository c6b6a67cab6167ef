// temper plot: curves of runs, side by side, in a picture.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/curves.h"

namespace temper::report {

struct PlotRequest {
  std::vector<std::filesystem::path> runs;  // as read_run_log takes them
  std::filesystem::path out;                // .svg or .png
  std::vector<std::string> fields;          // a panel each; empty: loss, grad_norm, learning_rate, tokens_per_second
  XAxis axis = XAxis::kStep;
};

// Writes the picture, whole or not at all, and gives what the user should be told of the logs. Throws kInvalidArgument
// for a field that no run has, naming the nearest that one has.
std::vector<std::string> plot(const PlotRequest& request);

}  // namespace temper::report
