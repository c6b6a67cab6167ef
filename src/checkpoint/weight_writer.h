// The bytes of planned weights, streamed into files.
#pragma once

#include <optional>
#include <unordered_map>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/save_plan.h"
#include "checkpoint/whole_weights.h"

namespace temper::checkpoint {

// Memory: a few megabytes, one stripe of 128 rows if that is more, and the scales of the weights whose scale has not
// been written yet.
class WeightWriter {
 public:
  explicit WeightWriter(WholeWeights& weights) : weights_(weights) {}

  // The next bytes of the file: the weight's, or its scale's, in any order. The planned weight stays where it is until
  // both are written. Values are converted, rounded to nearest even, or quantised (encoding.h) by all threads. Refuses
  // to quantise an element that is not finite.
  void write_weight(SafetensorsWriter& to, const PlannedWeight& planned);
  void write_scale(SafetensorsWriter& to, const PlannedWeight& planned);

 private:
  // What is known of a weight of which one half is written.
  struct State {
    std::optional<bool> is_copied;
    std::vector<std::byte> scales;
  };

  bool is_copied(const PlannedWeight& planned);
  bool equals_source(const PlannedWeight& planned);
  void write_plain(SafetensorsWriter& to, const PlannedWeight& planned);
  void encode(SafetensorsWriter* to, const PlannedWeight& planned);
  const std::byte* fetch(const PlannedWeight& planned, int64_t row_begin, int64_t row_end);

  WholeWeights& weights_;
  std::unordered_map<const PlannedWeight*, State> states_;
  std::vector<std::byte> held_, made_;
};

}  // namespace temper::checkpoint
