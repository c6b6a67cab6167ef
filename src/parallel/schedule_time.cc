#include "parallel/schedule_time.h"

#include <algorithm>

#include "base/check.h"
#include "parallel/schedule_progress.h"

namespace temper::parallel {
namespace {

double duration(Action action, const PartTimes& times) {
  switch (action) {
    case Action::kForward:
      return times.forward;
    case Action::kBackward:
      return times.backward_input + times.backward_weight;
    case Action::kBackwardInput:
      return times.backward_input;
    case Action::kBackwardWeight:
      return times.backward_weight;
    default:
      return 0;
  }
}

}  // namespace

Timing simulate(const PipelineLists& lists, std::span<const PartTimes> parts, double latency) {
  const size_t num_stages = lists.stage_lists.size();
  CHECK(parts.size() == num_stages * lists.num_chunks, parts.size(), num_stages, lists.num_chunks);
  Timing timing;
  timing.begin.resize(num_stages);
  std::vector<double> clock(num_stages, 0), work(num_stages, 0);
  Progress progress(lists);
  const std::string fault = run_all(progress, [&](int64_t stage, const Instruction& i, double arrival) {
    const double seconds = duration(i.action, parts[i.chunk * num_stages + stage]);
    clock[stage] = std::max(clock[stage], arrival);
    timing.begin[stage].push_back(clock[stage]);
    clock[stage] += seconds;
    work[stage] += seconds;
    return clock[stage] + latency;
  });
  CHECK(fault.empty(), fault);
  timing.makespan = std::ranges::max(clock);
  timing.bubble = timing.makespan - std::ranges::max(work);
  double total_work = 0;
  for (const double w : work) total_work += w;
  timing.bubble_fraction =
      timing.makespan > 0 ? 1 - total_work / (timing.makespan * static_cast<double>(num_stages)) : 0;
  return timing;
}

}  // namespace temper::parallel
