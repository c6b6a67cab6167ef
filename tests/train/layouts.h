// A few steps of training on any layout of ranks, in one process, and what came of them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "parallel/mesh.h"
#include "train/session.h"
#include "train/step.h"
#include "train/tiny.h"

namespace temper::train::testing {

// The tiny model with a number of experts that ranks can share, and with so many layers: its three, again and again.
model::Config layout_config(int64_t num_layers = 3);

struct TrainedCase {
  model::Config config = layout_config();
  std::vector<std::vector<layers::MicroBatch>> steps;  // the micro-batches of each
  model::ModelOptions options;                         // max_tokens is set from the steps
  objective::ObjectiveOptions objective;
  AuxiliaryWeights auxiliary;
  double max_grad_norm = 1;
  optim::AdamwOptions adamw;
  int64_t skipped_step = -1;  // whose gradients are computed, and then given up
  bool evaluates = false;     // the first step's micro-batches, after every step
  bool rebalances = false;    // experts are dealt anew after every step, by the loads of that step
  bool exact = false;
  // All tokens choose experts of one rank, which takes as few rows at once as can be: the rest comes in further rounds.
  bool has_expert_rounds = false;
};

// Steps of micro-batches of unequal lengths: documents on both sides of the window and the compression rates, one
// micro-batch without any target; every kind of loss. In fp32.
TrainedCase layout_case(size_t micro_batches_per_step, int num_steps = 3);

struct Trained {
  std::vector<double> losses, mtp_losses;                     // of each step
  std::vector<double> norms, updates, weight_norms;           // the same: of gradients, updates and weights; 0: skipped
  std::vector<double> balance_losses, indexer_losses;         // the same
  std::vector<double> heldout;                                // losses of evaluations
  std::vector<std::vector<int32_t>> loads;                    // of experts in the first step, by layer
  std::map<std::string, std::vector<double>> biases;          // of routers, after the last step
  std::map<std::string, std::vector<double>> gradients;       // of the first step, of the whole model
  std::map<std::string, std::vector<double>> last_gradients;  // of the last one
  std::map<std::string, std::vector<double>> weights;         // after the last one
  int64_t num_dealt = 0;                                      // layers whose experts were dealt anew, over all steps
  int64_t planned_bytes = 0, allocated_bytes = 0;             // of rank 0
};

// Trains that model from one start: without ranks; as one of the ranks of a world, all of which get the result; on
// ranks that are threads of this process.
Trained train_alone(const TrainedCase& c);
Trained train_in(comm::Comm& world, const parallel::Layout& layout, const TrainedCase& c);
Trained train_on(const parallel::Layout& layout, const TrainedCase& c);

struct Difference {
  // Relative, of the loss, prediction loss or norm that differs most: of the first step, and of all steps, with
  // updates.
  double first_step = 0, curve = 0;
  double first_loss = 0, loss_curve = 0;  // the same of losses alone; the curve's with those of evaluations
  double gradient = 0;                    // relative, of all gradients as one vector
  double worst_gradient = 0;    // of the parameter that differs most, relative to its norm and no less than 1/1000
  std::string worst_parameter;  // of the largest; and its name
  double auxiliary = 0;         // relative, of the balance or indexer loss of the first step
  double bias = 0;              // largest difference of a router's bias
  bool same_loads = true;
  double weight = 0;      // the same of the weights
  std::string first_bit;  // what first has other bits: "norm of step 0"; empty: nothing
};
Difference difference(const Trained& a, const Trained& b);

}  // namespace temper::train::testing
