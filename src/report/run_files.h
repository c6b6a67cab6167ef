// What a run directory tells besides its numbers: configuration, states, incidents, samples, and how it ended.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "report/run_log.h"

namespace temper::report {

enum class RunStatus {
  kRunning,      // a process holds the lock of the directory
  kFinished,     // its model is there
  kInterrupted,  // neither
};

struct StateFacts {
  std::string name;
  int64_t step = 0, num_bytes = 0;
  std::optional<double> score;
  std::string hash;
  bool is_pinned = false;
};

struct IncidentFacts {
  std::string name;  // of its directory
  nlohmann::ordered_json facts;
};

// A question to the model, as `temper eval --answers` writes it.
struct Sample {
  std::string prompt, expected, given;
};

struct RunFiles {
  std::filesystem::path path;
  RunStatus status = RunStatus::kInterrupted;
  RunLog log;
  nlohmann::ordered_json description = nlohmann::ordered_json::object();  // run.json
  std::optional<model::Config> model;
  std::vector<StateFacts> states;        // by step
  std::vector<IncidentFacts> incidents;  // by step
  std::vector<Sample> samples;           // in the order of samples.jsonl
  std::vector<std::string> notes;        // what could not be read, and why: it is left out
};

// Reads a run directory. Only metrics.jsonl must be there and in order (read_run_log); anything else that is missing is
// empty, and what is damaged is noted. Reads only regular files in the directory, each within a bound.
RunFiles read_run_files(const std::filesystem::path& directory);

}  // namespace temper::report
