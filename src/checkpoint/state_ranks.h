// Run states that many ranks write and read together. All functions are collective; ranks null: this rank alone.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "checkpoint/state_log.h"
#include "comm/comm.h"

namespace temper::checkpoint {

// The parts of all ranks on the first one, for StateLog::publish; nothing elsewhere.
std::vector<StatePart> gather_parts(comm::Comm* ranks, const StatePart& part);

// StateLog::open_newest for ranks that see one directory: the first rank says which states there are, all verify a
// share of each one's bytes, and a state is taken if nobody found damage. The result and `damaged` are the same on all
// ranks.
std::optional<OpenedState> open_newest(StateLog& log, int64_t at_most_step, std::vector<DamagedState>& damaged,
                                       comm::Comm* ranks);

}  // namespace temper::checkpoint
