// One optimizer step: count Z, run the instruction list, clip, check, update.
#pragma once

#include <span>
#include <vector>

#include "layers/ctx.h"
#include "model/model.h"
#include "objective/objective.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "parallel/schedule.h"

namespace temper::train {

struct StepResult {
  double loss = 0;                 // (1/Z) sum w l over the step
  double mean_token_accuracy = 0;  // share of targets that were the most likely token
  int64_t num_tokens = 0, num_targets = 0;
  double learning_rate = 0;
  optim::GradientNorms norms;  // before clipping
  double model_flops = 0;      // forward and backward by the formula of docs/numerics.md
  double forward_seconds = 0, backward_seconds = 0, optimizer_seconds = 0;
};

// What a step works on; all must outlive it.
struct StepParts {
  layers::Ctx& ctx;
  model::Model& model;
  const objective::Objective& objective;
  optim::NormMeter& norm_meter;
  optim::Adamw& adamw;
  double max_grad_norm;  // 0: no clipping
};

class Step : private parallel::Executor {
 public:
  explicit Step(StepParts parts) : parts_(parts) {}

  // Runs one step. Throws kInvalidArgument, before the weights are touched, when the batch has no trained token or a
  // loss or gradient is not finite; the message names the tensor.
  StepResult run(std::span<const layers::MicroBatch> batches, double learning_rate);

  // The instruction being run, in words; for whoever catches an error.
  std::string position() const;

 private:
  void execute(const parallel::Instruction& instruction) override;
  void forward(const layers::MicroBatch& batch);
  void loss(const layers::MicroBatch& batch);
  void reduce();

  StepParts parts_;
  std::span<const layers::MicroBatch> batches_;
  std::vector<parallel::Instruction> instructions_;
  size_t position_ = 0;
  double z_ = 0;
  objective::Sums sums_;
  std::vector<double> dlogp_T_;
  StepResult result_;
};

// Z of a step: the objective's count over all its micro-batches.
double count_denominator(const objective::Objective& objective, std::span<const layers::MicroBatch> batches);

}  // namespace temper::train
