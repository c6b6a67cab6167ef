// One optimizer step in two halves: compute (count Z, run the instruction list, measure the gradients) and update
// (clip, move the weights). Between them somebody may look at the result and decide that the weights stay as they are.
#pragma once

#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "layers/ctx.h"
#include "model/model.h"
#include "objective/objective.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "parallel/schedule.h"

namespace temper::train {

// The sums of the prediction, balance and indexer losses enter a step's loss with these weights; 0: not at all.
struct AuxiliaryWeights {
  double mtp = 0, balance = 0, indexer = 0;
  double bias_update_speed = 0;
};

struct StepResult {
  double loss = 0;  // (1/Z) sum w l over the step
  // Unweighted. mtp: (1/Z) sum w l of the prediction block. balance: sum_e F_e P_e, mean over rows, summed over layers.
  // indexer: KL, mean over tokens, summed over layers.
  double mtp_loss = 0, balance_loss = 0, indexer_loss = 0;
  std::vector<model::MoeStatistics>
      moe_L;                       // by layer, the prediction block last; empty after a loss that is not finite
  double mean_token_accuracy = 0;  // share of targets that were the most likely token
  int64_t num_tokens = 0, num_targets = 0;
  double learning_rate = 0;
  // How much longer than the mean rank the step is predicted to take for those that the others wait for, in FLOPs: 0.1
  // is a tenth. Micro-batch by micro-batch, or, where data parallel ranks wait at the end only, of the step.
  double imbalance = 0;
  optim::GradientNorms norms;                // before clipping
  std::optional<optim::UpdateNorms> update;  // after update(), where StepParts has a meter
  double model_flops = 0;                    // forward and backward by the formula of docs/numerics.md
  double forward_seconds = 0, backward_seconds = 0, optimizer_seconds = 0;

  // Whether the loss and every gradient are finite numbers.
  bool finite() const;
};

// What a step works on; all must outlive it.
struct StepParts {
  layers::Ctx& ctx;
  model::Model& model;
  const objective::Objective& objective;
  optim::NormMeter& norm_meter;
  optim::Adamw& adamw;
  double max_grad_norm;  // 0: no clipping
  AuxiliaryWeights auxiliary = {};
  const optim::UpdateMeter* update_meter = nullptr;  // null: the update is not measured
};

class Step : private parallel::Executor {
 public:
  explicit Step(StepParts parts) : parts_(parts) {}

  // The number of the step from now on, for ranks that wait for this one.
  void at(int64_t number) { number_ = number; }

  // Loss and gradients of a step; weights and moments stay as they are, so that it can be repeated. batches: of the
  // whole step, equal on all ranks, which deal them among themselves; the result is that of all ranks. After a loss
  // that is not finite nothing more is computed, and the gradients mean nothing; so it is with loss weights that are
  // not finite. Throws kInvalidArgument when the batch has no trained token.
  const StepResult& compute(std::span<const layers::MicroBatch> batches, double learning_rate);

  // Moves the weights (and router biases) by what the last compute() found, which must be finite.
  const StepResult& update();

  // The rank of dp that each micro-batch of the last compute() was dealt to.
  const std::vector<int64_t>& dealt_to() const { return dp_rank_M_; }

  // The instruction being run, in words; for whoever catches an error. Micro-batches by their number in the step.
  std::string position() const;
  // The micro-batch of the step that it concerns; -1: all of them, or an empty one.
  int64_t micro_batch() const;

 private:
  void execute(const parallel::Instruction& instruction) override;
  // What the step's results are made of, for each micro-batch.
  struct Sums {
    double loss = 0, mtp_loss = 0, num_targets = 0, num_correct = 0, num_tokens = 0, model_flops = 0;
  };
  static constexpr size_t kEmpty = std::numeric_limits<size_t>::max();
  double predicted_flops(const layers::MicroBatch& batch) const;
  double dealing_cost(const layers::MicroBatch& batch) const;
  void deal();
  void add_up();
  const layers::MicroBatch& batch_of(const parallel::Instruction& instruction) const;
  void run_instructions();
  Sums& sums_of(const parallel::Instruction& instruction);
  void pass(const parallel::Instruction& instruction);
  model::LossGradients loss_gradients() const;
  void forward(const parallel::Instruction& instruction);
  void loss(const parallel::Instruction& instruction);
  double mtp_loss();
  void reduce();
  void auxiliary();

  StepParts parts_;
  int64_t number_ = 0;
  std::span<const layers::MicroBatch> batches_;
  std::vector<parallel::Instruction> instructions_;
  size_t position_ = 0;
  parallel::PipelinePlace place_;
  parallel::Slots slots_;
  std::vector<size_t> mine_;  // this rank's micro-batches; kEmpty: one without tokens
  std::vector<int64_t> dp_rank_M_;
  double z_ = 0;
  int64_t num_step_tokens_ = 0;
  std::vector<Sums> sums_M_;
  const layers::MicroBatch empty_{{}, {0}, {}, {}};
  Sums empty_sums_;
  bool loss_is_finite_ = true;
  std::vector<double> dlogp_T_, mtp_dlogp_R_;
  StepResult result_;
};

// Z of a step: the objective's count over all its micro-batches.
double count_denominator(const objective::Objective& objective, std::span<const layers::MicroBatch> batches);

}  // namespace temper::train
