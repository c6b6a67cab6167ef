// What the checks of a model found: gates that failed, and what is worth knowing although it is no fault.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace temper::verify {

// Layers are numbered as in the model; MTP block i is num_hidden_layers + i.
inline constexpr int64_t kNoLayer = -1;

struct Finding {
  bool failed = true;  // false: a note, which leaves the exit code alone
  int64_t layer = kNoLayer;
  std::string place;    // tensor, op, or part of the model
  std::string message;  // what was measured and what was allowed, with numbers
  std::string cause;    // what usually causes it; empty where the evidence does not say
};

class Findings {
 public:
  void fail(int64_t layer, std::string place, std::string message, std::string cause = {});
  void note(int64_t layer, std::string place, std::string message);

  const std::vector<Finding>& all() const { return all_; }
  int64_t num_failed() const;

  // A line a finding, failures first, at most `most` of each; with layers as layer_name says them.
  std::string to_string(int64_t num_main_layers, int64_t most = 20) const;
  nlohmann::json to_json() const;

 private:
  std::vector<Finding> all_;
};

// "layer 3", "mtp 0", or "" for kNoLayer.
std::string layer_name(int64_t layer, int64_t num_main_layers);

}  // namespace temper::verify
