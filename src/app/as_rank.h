// A command that many ranks run together, seen from outside: one voice, and one exit code for all.
#pragma once

#include <functional>

#include "comm/world.h"

namespace temper::app {

// Runs body as this rank. An Error that leaves it is told to the other ranks, who may be waiting, printed - each line
// begins with "rank 3: " on all ranks but the first -, and becomes the exit code. What the first rank has found as well
// is left to it to print; what one rank has found is printed by it and by the first, not by all who heard of it. Alone,
// body is simply run.
void as_rank(comm::World& world, const std::function<void()>& body);

}  // namespace temper::app
