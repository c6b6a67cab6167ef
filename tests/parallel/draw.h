// A pipeline's step as text, for docs/schedules.md: a line per stage, a column per unit of time.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "parallel/schedule_time.h"

namespace temper::parallel {

// F0 forward of micro-batch 0, B0 backward to the inputs, W0 to the weights; a backward of both is B0 and == beside it;
// . waits. A second chunk's work has a mark behind. A chunk's F, B and W take a column each.
inline std::string draw(const PipelineLists& lists) {
  const size_t num_stages = lists.stage_lists.size();
  const std::vector<PartTimes> parts(num_stages * lists.num_chunks);
  const Timing timing = simulate(lists, parts, 0);
  std::string text;
  for (size_t s = 0; s < num_stages; ++s) {
    std::vector<std::string> columns(std::llround(timing.makespan), ".");
    for (size_t i = 0; i < lists.stage_lists[s].size(); ++i) {
      const Instruction& instruction = lists.stage_lists[s][i];
      const Action action = instruction.action;
      const char letter = action == Action::kForward          ? 'F'
                          : action == Action::kBackward       ? 'B'
                          : action == Action::kBackwardInput  ? 'B'
                          : action == Action::kBackwardWeight ? 'W'
                                                              : 0;
      if (!letter) continue;
      const size_t at = std::llround(timing.begin[s][i]);
      columns[at] = fmt::format("{}{}{}", letter, instruction.micro_batch, instruction.chunk == 1 ? "'" : "");
      if (action == Action::kBackward) columns[at + 1] = "==";
    }
    text += fmt::format("stage {}", s);
    for (const std::string& column : columns) text += fmt::format(" {:{}}", column, lists.num_chunks > 1 ? 3 : 2);
    while (text.back() == ' ') text.pop_back();
    text += '\n';
  }
  return text;
}

}  // namespace temper::parallel
