// A training step as a list of small instructions, and the interpreter that runs it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace temper::parallel {

enum class Action : uint8_t {
  kForward,   // F: the trunk of a micro-batch
  kLoss,      // log-probabilities and per-token gradient weights of it
  kBackward,  // B and W: parameter gradients of it are accumulated
  kReduce,    // gradients are complete: norms, finite check
  kUpdate,    // clipped gradients move the weights
};

struct Instruction {
  Action action;
  int64_t micro_batch = -1;  // -1: concerns the whole step
  bool operator==(const Instruction&) const = default;
};

std::string describe(const Instruction& instruction);  // "backward of micro-batch 3"

// The gradients of a step on one rank without a pipeline: F, L, B per micro-batch in order, then reduce. Only one
// micro-batch is alive at a time, so one set of saved activations serves them all. The update is a list of its own: the
// result is judged before it.
std::vector<Instruction> one_rank_step(int64_t num_micro_batches);

// The one who carries instructions out.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void execute(const Instruction& instruction) = 0;
};

// Runs the instructions in order. position is that of the instruction being run, so that who catches an error can name
// it.
void run(std::span<const Instruction> instructions, Executor& executor, size_t& position);

}  // namespace temper::parallel
