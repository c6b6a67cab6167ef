// What temper inspect says about run states.
#pragma once

#include <filesystem>

namespace temper::app {

// A directory of one run state, of all states of a run, or of a run.
bool holds_run_states(const std::filesystem::path& directory);

// Prints each state with its step, size, hash and whether it verifies, then the facts of the newest that does. Of one
// state that is damaged: throws what is wrong with it.
void inspect_run_states(const std::filesystem::path& directory);

}  // namespace temper::app
