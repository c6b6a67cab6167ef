// temper report: one self-contained HTML page about a run.
#pragma once

#include <string>

#include "report/run_files.h"

namespace temper::report {

// The page: status, key figures, curves, experts, time, samples, incidents, states, configuration. Curves are drawn by
// gnuplot (draw). Everything that stands in the run directory is escaped.
std::string report_page(const RunFiles& run);

}  // namespace temper::report
