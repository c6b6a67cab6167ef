#include "checkpoint/state_helpers.h"

namespace temper::checkpoint {

SmallState::SmallState(int64_t step, std::optional<double> score, int variant) {
  for (int i = 0; i < 6; ++i) floats_.push_back(static_cast<float>(step) + 0.5f * static_cast<float>(i + variant));
  for (int i = 0; i < 3; ++i) counts_.push_back(step * 1000 + i);
  for (int i = 0; i < 5; ++i) halves_.push_back(bf16(static_cast<float>(step - i)));
  contents_.step = step;
  contents_.score = score;
  contents_.facts = {{"loader", {{"epoch", 2}, {"example", step}}}, {"note", "für \"immer\""}};
  contents_.tensors = {{"halves", DType::kBF16, {5}, halves_.data()},
                       {"floats", DType::kF32, {2, 3}, floats_.data()},
                       {"counts", DType::kI64, {3, 1}, counts_.data()},
                       {"empty", DType::kF64, {0, 4}, nullptr}};
}

bool SmallState::equals(const OpenedState& state) const {
  if (state.step() != contents_.step || state.facts().dump() != contents_.facts.dump()) return false;
  if (state.score() != contents_.score || state.tensors().size() != contents_.tensors.size()) return false;
  for (const StateTensor& tensor : contents_.tensors) {
    const ManifestTensor* found = state.find(tensor.name);
    if (!found || found->dtype != tensor.dtype || !(found->shape == tensor.shape)) return false;
    const std::string_view bytes(static_cast<const char*>(tensor.data), static_cast<size_t>(found->num_bytes()));
    if (bytes_of(state, tensor.name) != bytes) return false;
  }
  return true;
}

std::string bytes_of(const OpenedState& state, std::string_view name) {
  const ManifestTensor* tensor = state.find(name);
  if (!tensor) return "no tensor";
  std::string bytes(static_cast<size_t>(tensor->num_bytes()), '\0');
  state.read(*tensor, 0, tensor->shape.size(), bytes.data());
  return bytes;
}

}  // namespace temper::checkpoint
