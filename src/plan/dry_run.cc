#include "plan/dry_run.h"

#include <algorithm>

#include "backend/null_counters.h"
#include "backend/registry.h"
#include "parallel/ranks.h"
#include "parallel/schedule_time.h"
#include "train/session.h"

namespace temper::plan {
namespace {

// A full row of documents of one length, every token trained.
layers::MicroBatch full_row(const DryRunRequest& request) {
  const int64_t T = request.options.max_tokens;
  const int64_t S = request.options.max_document > 0 ? std::min(request.options.max_document, T) : T;
  layers::MicroBatch batch;
  batch.tokens.assign(T, 0);
  batch.targets.assign(T, 0);
  batch.weights.assign(T, 1);
  batch.cu_seqlens.push_back(0);
  while (batch.cu_seqlens.back() < T) {
    batch.cu_seqlens.push_back(static_cast<int32_t>(std::min<int64_t>(T, batch.cu_seqlens.back() + S)));
    batch.targets[batch.cu_seqlens.back() - 1] = -1, batch.weights[batch.cu_seqlens.back() - 1] = 0;
  }
  return batch;
}

Role run_role(const DryRunRequest& request, int64_t stage, const std::vector<layers::MicroBatch>& batches,
              double& model_flops) {
  const parallel::Layout& layout = request.layout;
  const int64_t ranks_of_stage = layout.dp * layout.cp * layout.tp;
  std::unique_ptr<comm::Comm> imagined;
  const parallel::Ranks ranks = parallel::imagine_mesh(imagined, stage * ranks_of_stage, layout);
  model::ModelOptions options = request.options;
  ranks.place(request.config, request.num_micro_batches, options);
  train::Session session(backend::null_backend(), request.config, options,
                         request.staging ? train::StateMemory::kStaged : train::StateMemory::kNone, &ranks);
  const auto objective = objective::make_objective("pretrain", {});
  optim::Adamw adamw({});
  train::Step step({session.ctx(), session.model(), *objective, session.norm_meter(), adamw, 1.0, request.auxiliary,
                    &session.update_meter()});
  backend::reset_null_counters();
  step.compute(batches, 1e-4);
  const train::StepResult& result = step.update();
  model_flops += result.model_flops;

  Role role;
  role.stage = stage, role.num_ranks = ranks_of_stage;
  role.layers = {session.model().options().part.first_layer, session.model().options().part.end_layer};
  role.num_slots = options.part.num_slots;
  for (int k = 0; k < kNumTensorKinds; ++k) role.bytes[k] = session.book().region_bytes(static_cast<TensorKind>(k));
  role.total_bytes = session.book().total_bytes();
  const backend::OpCount total = backend::null_counters().total();
  role.num_ops = total.calls, role.flops = total.flops;
  for (const auto& [axis, group] : ranks.axes())
    role.traffic.push_back({axis, group->traffic().num_calls, group->traffic().num_bytes});
  return role;
}

}  // namespace

DryRun dry_run(const DryRunRequest& request) {
  const parallel::Layout& layout = request.layout;
  const std::vector<layers::MicroBatch> batches(request.num_micro_batches, full_row(request));
  DryRun run;
  run.num_tokens = request.num_micro_batches * request.options.max_tokens;
  for (int64_t stage = 0; stage < layout.pp; ++stage)
    run.roles.push_back(run_role(request, stage, batches, run.model_flops));
  // Only the last stage knows the results of its data parallel rank; the others' are the same micro-batches.
  run.model_flops *= static_cast<double>(layout.dp);
  const int64_t of_rank = (request.num_micro_batches + layout.dp - 1) / layout.dp;
  std::vector<parallel::PartTimes> parts;
  for (int64_t part = 0; part < layout.pp * layout.chunks; ++part) {
    const double pass = run.roles[part % layout.pp].flops / 3 / static_cast<double>(layout.chunks);
    parts.push_back({pass, pass, pass});
  }
  const auto lists = parallel::pipeline_lists(layout.schedule, layout.pp, layout.chunks, of_rank);
  run.bubble_fraction = parallel::simulate(lists, parts, 0).bubble_fraction;
  return run;
}

}  // namespace temper::plan
