// A run's configuration as it is kept with the run: every key with its value, whether it was given or not.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/run_config.h"

namespace temper::train {

// {"model.path": ..., "train.steps": 100, ...}: all keys in the order of the reference.
nlohmann::ordered_json configuration_of(const RunConfig& config);

// The configuration that configuration_of() wrote. origin stands for its file in messages. Throws as load_run_config.
RunConfig config_of(const nlohmann::ordered_json& configuration, const std::string& origin);

// Keys that change the mathematics of a run and have another value now, a line each: "optimizer.lr: 0.01, now 0.02".
// A key that `before` does not know has its default there. Keys that only say where files are, how often something is
// written or when the run pauses may differ.
std::vector<std::string> changed_mathematics(const nlohmann::ordered_json& before, const RunConfig& now);

// xxh3 of the keys that change the mathematics and of the model's config.json: 32 hexadecimal digits. Runs with equal
// hashes on equal data are the same run.
std::string configuration_hash(const RunConfig& config, const nlohmann::json& model_config);

}  // namespace temper::train
