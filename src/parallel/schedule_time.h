// How long a pipeline's lists take, and how long its stages wait: from given times, without a device.
#pragma once

#include <span>
#include <vector>

#include "parallel/schedule.h"

namespace temper::parallel {

// Times of a part, in any unit. kBackward takes both of its halves; L is part of the last part's forward.
struct PartTimes {
  double forward = 1, backward_input = 1, backward_weight = 1;
};

struct Timing {
  double makespan = 0;                     // from the first F to the last instruction of any stage
  double bubble = 0;                       // makespan less the busiest stage's work
  double bubble_fraction = 0;              // share of all stages' time in which they wait
  std::vector<std::vector<double>> begin;  // of every instruction, by stage
};
// parts: by part (schedule.h). A message arrives `latency` after its send, which takes no time itself. The lists must
// be without fault.
Timing simulate(const PipelineLists& lists, std::span<const PartTimes> parts, double latency);

}  // namespace temper::parallel
