// Everything that a run must know to go on exactly as if it had never stopped, but for its tensors (state_tensors.h).
//
// It is the "facts" of a run state (docs/formats.md). Random numbers need no state: they are functions of a seed, a
// purpose, a step and an index (base/philox.h), and the seeds are part of the configuration.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "data/loader.h"
#include "train/evaluate.h"
#include "train/step.h"

namespace temper::train {

// What a run has added up so far.
struct RunTotals {
  int64_t num_tokens = 0;
  double train_seconds = 0;  // steps with their data; without held-out losses and saving
  double model_flops = 0;
  double first_loss = 0, last_loss = 0;
  std::optional<HeldoutResult> heldout_before, heldout_after;
};

struct RunState {
  int64_t step = 0;         // steps done: the position of the schedule
  int64_t num_updates = 0;  // of them, those that moved the weights: AdamW's t
  uint64_t chain = 0;       // of the whole way here, see extend_chain
  data::LoaderPosition loader;
  RunTotals totals;
  nlohmann::ordered_json tokens_by_source = nlohmann::ordered_json::object();  // of SourceTokens
  nlohmann::ordered_json guard;                                                // see Guard
  std::map<std::string, int64_t> log_bytes;                                    // of RunLogs

  nlohmann::ordered_json configuration;  // of the run, by key
  nlohmann::json model_config;           // config.json of the model
  std::string configuration_hash, machine;

  nlohmann::ordered_json to_json() const;
  // Refuses (kCorrupt, naming origin) what is not such an object.
  static RunState from_json(const nlohmann::ordered_json& json, const std::string& origin);
};

// xxh3 of the chain before a step, the step's number, and the bits of its loss, gradient norm, learning rate and
// tokens: two runs with equal chains at a step went the same way up to it, and the first step with different ones is
// where they parted.
uint64_t extend_chain(uint64_t chain, int64_t step, const StepResult& result);

}  // namespace temper::train
