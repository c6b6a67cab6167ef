// A few steps of training on any layout of ranks, in one process, and what came of them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "train/session.h"
#include "train/step.h"
#include "train/tiny.h"

namespace temper::train::testing {

struct TrainedCase {
  std::vector<std::vector<layers::MicroBatch>> steps;  // the micro-batches of each
  model::ModelOptions options;                         // max_tokens is set from the steps
  AuxiliaryWeights auxiliary;
  bool exact = false;
};

struct Trained {
  std::vector<double> losses, mtp_losses, norms;         // of each step
  std::map<std::string, std::vector<double>> gradients;  // of the first step, of the whole model
  std::map<std::string, std::vector<double>> weights;    // after the last one
  int64_t planned_bytes = 0, allocated_bytes = 0;        // of rank 0
};

// Trains the tiny model from the same start on dp * pp * ... ranks, threads of this process. Throws as a rank does.
Trained train_on(const parallel::Layout& layout, const TrainedCase& c);

struct Difference {
  double loss = 0;        // relative, of the loss, prediction loss or norm that differs most
  double gradient = 0;    // relative, of all gradients as one vector
  double weight = 0;      // the same of the weights
  std::string first_bit;  // what first has other bits: "norm of step 0"; empty: nothing
};
Difference difference(const Trained& a, const Trained& b);

}  // namespace temper::train::testing
