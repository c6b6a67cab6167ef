// The real step of a run, on a backend that moves nothing, once for every role that a rank of the world can have.
//
// Roles are the stages of the pipeline: ranks of a stage differ in nothing but who they are. Memory is that of the Book
// which the run would allocate from; calls, FLOPs and messages are counted where the step makes them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/model_options.h"
#include "parallel/mesh.h"
#include "parallel/stages.h"
#include "tensor/book.h"
#include "train/run_config.h"
#include "train/step.h"

namespace temper::plan {

struct DryRunRequest {
  model::Config config;
  model::ModelOptions options;    // of a rank that has the whole model; max_document says how long documents are
  parallel::Layout layout;        // resolved
  int64_t num_micro_batches = 1;  // of a step, of all ranks
  train::AuxiliaryWeights auxiliary;
  bool staging = false;  // with a copy of the run state
};

// What one rank sends or takes part in, along an axis, in a step.
struct AxisTraffic {
  std::string axis;
  int64_t num_calls = 0, num_bytes = 0;
};

struct Role {
  int64_t stage = 0, num_ranks = 0;  // ranks that have this role
  std::vector<parallel::SiteRange> chunks;
  int64_t num_slots = 1;                         // passes of micro-batches through chunks that are alive at once
  std::array<int64_t, kNumTensorKinds> bytes{};  // by TensorKind
  int64_t total_bytes = 0;
  int64_t num_ops = 0;
  double flops = 0;  // of all ops of a step, recomputation and padding included
  std::vector<AxisTraffic> traffic;
};

struct DryRun {
  std::vector<Role> roles;     // by stage
  double model_flops = 0;      // of a step of all ranks (docs/numerics.md)
  double bubble_fraction = 0;  // of the pipeline's lists, with the stages' FLOPs as their times
  int64_t num_tokens = 0;      // of a step
};

// Throws what Model and Session throw of a configuration that cannot be run.
DryRun dry_run(const DryRunRequest& request);

// The ranks that need most memory, from their Books alone: no step is made, so that num_ops, flops and traffic stay 0.
Role heaviest_role(const DryRunRequest& request);

// A micro-batch as the run of the request sees it: a full row of documents of one length, every token trained.
layers::MicroBatch full_row(const DryRunRequest& request);

// Of a run file, without layout. Throws what reading the model's configuration throws.
DryRunRequest dry_run_request(const train::RunConfig& config);

}  // namespace temper::plan
