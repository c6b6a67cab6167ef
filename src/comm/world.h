// Where ranks come from.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "comm/comm.h"

namespace temper::comm {

// A world of one rank.
std::unique_ptr<Comm> self_comm();

// Runs body on num_ranks threads, each one rank of a world, and returns when all are done. Where a body throws, the
// others are aborted, and the first cause is rethrown. For tests; views are in host memory. parallel_for inside the
// bodies shares one team.
void run_ranks(int64_t num_ranks, const std::function<void(Comm& world)>& body);

}  // namespace temper::comm
