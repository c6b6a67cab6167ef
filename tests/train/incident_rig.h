// A tiny model, a step of two micro-batches with samples behind their documents, and faults put into its ops.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/watched.h"
#include "train/incident.h"
#include "train/session.h"

namespace temper::train::testing {

// Does something to the operands of one op call of each pass: the nth call (from 0) of this op in this micro-batch.
struct Fault : backend::OpWatcher {
  backend::OpId op = backend::OpId::kCount;
  int64_t micro_batch = 0, nth = 0;
  int64_t num_micro_batches = 2;
  std::function<void(const backend::OpCall&)> action;
  int64_t most = 1'000'000;  // times that it happens; 1: a transient fault

  void before(const backend::OpCall&) override {}
  void after(const backend::OpCall& call) override;

  // Row of the dispatched experts' memory that holds a token, of the last plan before the op.
  int64_t expert_row(int32_t token) const;

 private:
  int64_t embeddings_ = 0, matches_ = 0;
  std::vector<int32_t> row_token_R_;
};

const View& operand_of(const backend::OpCall& call, std::string_view name);
// Writes one element of a tensor in host memory.
void set_element(const View& view, std::vector<int64_t> index, double value);

class IncidentRig {
 public:
  explicit IncidentRig(layers::Precision precision, bool mtp = false,
                       model::Recompute recompute = model::Recompute::kNone);

  // Trains `num` ordinary steps on other data, the last of which becomes the baseline.
  void train(int64_t num);
  // Computes the step of `data` and investigates it as an anomaly of this kind (kNone: whatever its result says).
  Incident find(Anomaly anomaly = Anomaly::kNone);

  layers::Parameter& parameter(const std::string& name);
  Fault& fault() { return fault_; }
  Session& session() { return session_; }
  StepParts parts() {
    return {ctx_,
            session_.model(),
            *objective_,
            session_.norm_meter(),
            adamw_,
            1,
            {session_.model().options().mtp ? 0.1 : 0, 1e-4, 0, 0}};
  }

  data::LoaderStep data, baseline;

 private:
  data::LoaderStep make_step(uint64_t seed);

  Session session_;
  Fault fault_;
  backend::WatchedBackend faulty_;
  layers::Ctx ctx_;
  std::unique_ptr<objective::Objective> objective_ = objective::make_objective("sft", {});
  optim::Adamw adamw_{optim::AdamwOptions{}};
  std::vector<std::unique_ptr<data::Example>> examples_;
};

}  // namespace temper::train::testing
