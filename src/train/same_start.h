// Ranks that were started differently would train something that nobody asked for, in silence: they are told apart
// first.
#pragma once

#include <nlohmann/json.hpp>

#include "comm/comm.h"
#include "train/run_config.h"

namespace temper::train {

// What the command that started this rank says: every key of its run file with its value, and a hash of the program.
nlohmann::ordered_json started_with(const RunConfig& config);

// Collective. Where the facts of a rank differ from those of the first one, every rank throws kInvalidArgument: the
// rank, each fact that differs, and both values. Equal facts cost two messages of their length.
void check_alike(comm::Comm& world, const nlohmann::ordered_json& facts);

}  // namespace temper::train
