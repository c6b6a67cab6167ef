// Objectives: what a step minimises. They see only log-probabilities.
//
// Every objective is  L = (1/Z) sum_t w_t l_t  over all positions of all micro-batches of the step, with Z counted over
// the whole step before the first backward. Gradients are then summed, never averaged, so micro-batch size,
// accumulation and packing cannot change the loss (post-training 2.0).
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "layers/token_layout.h"

namespace temper::objective {

// Sums over positions; those of micro-batches add up.
struct Sums {
  double loss = 0;         // sum of w_t l_t; divided by Z it is the loss of the step
  double num_targets = 0;  // positions with a target
  double num_correct = 0;  // of those, where the most likely token is the target
};

class Objective {
 public:
  virtual ~Objective() = default;

  // This micro-batch's share of Z.
  virtual double count(const layers::MicroBatch& batch) const = 0;

  // Where g_t does not depend on the log-probabilities: writes it and returns true. Else returns false.
  virtual bool constant_weights(const layers::MicroBatch& batch, double z, std::span<double> dlogp_T) const = 0;

  // Writes g_t = dL/dlogp_t (0 where there is no target) and returns the batch's sums.
  //   logp_T  log p(target); best_T  most likely token; dlogp_T  all with one value per position of the batch.
  virtual Sums token_weights(const layers::MicroBatch& batch, std::span<const double> logp_T,
                             std::span<const int32_t> best_T, double z, std::span<double> dlogp_T) const = 0;
};

struct ObjectiveOptions {
  // token: every target counts the same. sample: every document counts the same, whatever its number of targets.
  enum class Reduction : uint8_t { kToken, kSample } reduction = Reduction::kToken;
  bool dft = false;  // l_t = -sg(p_t) log p_t instead of -log p_t (dynamic fine-tuning)
};

// name: "pretrain" | "sft". Throws kUnsupported for objectives that Temper names but does not have yet,
// kInvalidArgument for others and for options that the objective does not take.
std::unique_ptr<Objective> make_objective(std::string_view name, const ObjectiveOptions& options);

}  // namespace temper::objective
