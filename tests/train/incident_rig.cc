#include "train/incident_rig.h"

#include <algorithm>

#include "train/tiny.h"

namespace temper::train::testing {

using backend::OpCall;
using backend::OpId;

const View& operand_of(const OpCall& call, std::string_view name) {
  for (const backend::Operand& operand : call.operands)
    if (operand.name == name) return operand.view;
  CHECK(false, std::string(name));
  return call.operands[0].view;
}

void set_element(const View& view, std::vector<int64_t> index, double value) {
  int64_t at = 0;
  for (size_t d = 0; d < index.size(); ++d) at += index[d] * view.strides[d];
  if (view.dtype == DType::kBF16) {
    view.data<bf16>()[at] = bf16(value);
  } else {
    view.data<float>()[at] = static_cast<float>(value);
  }
}

void Fault::after(const OpCall& call) {
  // The trunk's embedding begins a micro-batch; the prediction block's has one stream.
  if (call.id == OpId::embedding_forward && call.operands[0].view.dim(1) > 1) {
    ++embeddings_;
    matches_ = 0;
  }
  if (call.id == OpId::dispatch_plan) {
    const View& rows = operand_of(call, "row_token_R");
    row_token_R_.assign(rows.data<int32_t>(), rows.data<int32_t>() + rows.size());
  }
  if (call.id != op || (embeddings_ - 1) % num_micro_batches != micro_batch || matches_++ != nth || most == 0) return;
  --most;
  action(call);
}

int64_t Fault::expert_row(int32_t token) const {
  return std::find(row_token_R_.begin(), row_token_R_.end(), token) - row_token_R_.begin();
}

namespace {

model::ModelOptions options_of(layers::Precision precision, bool mtp, model::Recompute recompute) {
  model::ModelOptions options;
  options.precision = precision, options.max_tokens = 64, options.mtp = mtp, options.recompute = recompute;
  options.logit_chunk = 16;  // rows of the head are not tokens in order
  return options;
}

}  // namespace

IncidentRig::IncidentRig(layers::Precision precision, bool mtp, model::Recompute recompute)
    : session_(backend::cpu(), tiny_config(), options_of(precision, mtp, recompute)),
      faulty_(backend::cpu(), session_.ctx().stream, fault_),
      ctx_{faulty_.backend().ops, faulty_.backend().device, faulty_.stream(), session_.ctx().act, session_.ctx().acc} {
  session_.model().initialize(session_.ctx(), 1);
  data = make_step(99);
}

data::LoaderStep IncidentRig::make_step(uint64_t seed) {
  data::LoaderStep step;
  const std::vector<std::vector<int64_t>> lengths = {{20, 30}, {17, 5, 40}};
  for (size_t m = 0; m < lengths.size(); ++m) {
    step.micro_batches.push_back(pack_row(random_documents(lengths[m], tiny_config().vocab_size, 10 * seed + m)));
    auto& documents = step.documents.emplace_back();
    for (size_t d = 0; d < lengths[m].size(); ++d) {
      examples_.push_back(std::make_unique<data::Example>());
      examples_.back()->origin = fmt::format("data.jsonl:{}", 10 * m + d);
      documents.push_back(examples_.back().get());
    }
  }
  return step;
}

void IncidentRig::train(int64_t num) {
  Step step(parts());
  for (int64_t i = 0; i < num; ++i) {
    baseline = make_step(i + 1);
    CHECK(step.compute(baseline.micro_batches, 1e-3).finite());
    step.update();
  }
}

Incident IncidentRig::find(Anomaly anomaly) {
  Step step(parts());
  const StepResult result = step.compute(data.micro_batches, 1e-3);
  Judgement judgement{anomaly};
  if (!result.finite()) judgement.anomaly = Anomaly::kNonFinite;
  const bool has_baseline = !baseline.micro_batches.empty();
  return investigate({parts(), session_.book(), data, has_baseline ? &baseline : nullptr, 1e-3}, 7, result, judgement);
}

layers::Parameter& IncidentRig::parameter(const std::string& name) {
  for (layers::Parameter* p : session_.model().parameters())
    if (p->name == name) return *p;
  CHECK(false, name);
  return *session_.model().parameters()[0];
}

}  // namespace temper::train::testing
