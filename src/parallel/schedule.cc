#include "parallel/schedule.h"

#include <fmt/format.h>

#include "base/check.h"

namespace temper::parallel {

std::string describe(const Instruction& instruction) {
  constexpr const char* kNames[] = {"forward", "loss", "backward", "gradient reduction", "update"};
  const char* name = kNames[static_cast<int>(instruction.action)];
  return instruction.micro_batch < 0 ? name : fmt::format("{} of micro-batch {}", name, instruction.micro_batch);
}

std::vector<Instruction> one_rank_step(int64_t num_micro_batches) {
  CHECK(num_micro_batches > 0, num_micro_batches);
  std::vector<Instruction> instructions;
  for (int64_t i = 0; i < num_micro_batches; ++i) {
    for (Action action : {Action::kForward, Action::kLoss, Action::kBackward}) instructions.push_back({action, i});
  }
  instructions.push_back({Action::kReduce});
  return instructions;
}

void run(std::span<const Instruction> instructions, Executor& executor, size_t& position) {
  for (position = 0; position < instructions.size(); ++position) executor.execute(instructions[position]);
}

}  // namespace temper::parallel
