// A bundle about a bad step, replayed: `temper train --replay BUNDLE`.
#pragma once

#include <filesystem>

#include "train/trainer.h"

namespace temper::train {

// Starts from the run state that the bundle names, in the run directory that it lies in (or from the fresh start, if it
// names none), with the configuration of its run.json, runs the steps up to the bad one and looks into that. Writes
// nothing. Throws kNotFound and kCorrupt for a bundle or a state that is not there or damaged.
ReplayResult replay(const std::filesystem::path& bundle_dir);

}  // namespace temper::train
