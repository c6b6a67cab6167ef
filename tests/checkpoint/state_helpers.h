// Helpers of the run state tests: small states with known bytes.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/state_log.h"

namespace temper::checkpoint {

inline constexpr const char* kTensorFileName = "tensors-00000.safetensors";  // of a state that one process wrote
inline constexpr int64_t kAnyStep = std::numeric_limits<int64_t>::max();

// A state of few bytes that differs from step to step and from variant to variant, with memory of its own.
class SmallState {
 public:
  explicit SmallState(int64_t step, std::optional<double> score = std::nullopt, int variant = 0);
  SmallState(const SmallState&) = delete;
  SmallState& operator=(const SmallState&) = delete;
  const StateContents& contents() const { return contents_; }
  // Whether the state that was read is this one, in facts and every byte of every tensor.
  bool equals(const OpenedState& state) const;

 private:
  std::vector<float> floats_;
  std::vector<int64_t> counts_;
  std::vector<bf16> halves_;
  StateContents contents_;
};

// The bytes of a tensor of a state; "no tensor" if there is none of that name.
std::string bytes_of(const OpenedState& state, std::string_view name);

}  // namespace temper::checkpoint
