#include "plan/dry_run.h"

#include <algorithm>
#include <optional>
#include <set>

#include "backend/null_counters.h"
#include "backend/registry.h"
#include "parallel/ranks.h"
#include "parallel/schedule_time.h"
#include "train/run_options.h"
#include "train/session.h"

namespace temper::plan {
namespace {

// A rank of a stage, with its memory and nothing in it.
struct ImaginedRank {
  std::unique_ptr<comm::Comm> world;
  parallel::Ranks ranks;
  std::optional<train::Session> session;

  ImaginedRank(const DryRunRequest& request, int64_t stage)
      : ranks(parallel::imagine_mesh(world, stage * ranks_of_stage(request.layout), request.layout)) {
    model::ModelOptions options = request.options;
    ranks.place(request.config, request.num_micro_batches, options);
    session.emplace(backend::null_backend(), request.config, options,
                    request.staging ? train::StateMemory::kStaged : train::StateMemory::kNone, &ranks);
  }

  Role role() {
    Role role;
    const model::ModelPart& part = session->model().options().part;
    role.stage = ranks.at.pp, role.num_ranks = ranks_of_stage(ranks.layout);
    role.chunks = part.chunks;
    role.num_slots = part.num_slots;
    for (int k = 0; k < kNumTensorKinds; ++k) role.bytes[k] = session->book().region_bytes(static_cast<TensorKind>(k));
    role.total_bytes = session->book().total_bytes();
    return role;
  }

  static int64_t ranks_of_stage(const parallel::Layout& layout) { return layout.dp * layout.cp * layout.tp; }
};

Role run_role(const DryRunRequest& request, int64_t stage, const std::vector<layers::MicroBatch>& batches,
              double& model_flops) {
  ImaginedRank rank(request, stage);
  train::Session& session = *rank.session;
  const auto objective = objective::make_objective("pretrain", {});
  optim::Adamw adamw({});
  train::Step step({session.ctx(), session.model(), *objective, session.norm_meter(), adamw, 1.0, request.auxiliary,
                    &session.update_meter()});
  backend::reset_null_counters();
  step.compute(batches, 1e-4);
  const train::StepResult& result = step.update();
  model_flops += result.model_flops;

  Role role = rank.role();
  const backend::OpCount total = backend::null_counters().total();
  role.num_ops = total.calls, role.flops = total.flops;
  for (const auto& [axis, group] : rank.ranks.axes())
    role.traffic.push_back({axis, group->traffic().num_calls, group->traffic().num_bytes});
  return role;
}

}  // namespace

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

Role heaviest_role(const DryRunRequest& request) {
  // Of stages whose sites are of the same kinds, the first keeps the most micro-batches alive; the ends have more.
  std::set<std::vector<int>> seen;
  Role heaviest;
  for (int64_t stage = 0; stage < request.layout.pp; ++stage) {
    std::unique_ptr<comm::Comm> world;
    const parallel::Ranks ranks =
        parallel::imagine_mesh(world, stage * ImaginedRank::ranks_of_stage(request.layout), request.layout);
    model::ModelOptions options = request.options;
    ranks.place(request.config, request.num_micro_batches, options);
    std::vector<int> kinds;
    for (const parallel::SiteRange& sites : options.part.chunks) {
      kinds.push_back(sites.begin % 2 == 0 ? -2 : -1);  // streams within a layer and between layers are not of one kind
      for (int64_t s = sites.begin; s < sites.end; ++s)
        kinds.push_back(s % 2 == 0 ? 2 * static_cast<int>(request.config.layer_types[s / 2])
                                   : 2 * static_cast<int>(request.config.is_hash_moe[s / 2]) + 1);
    }
    std::sort(kinds.begin(), kinds.end());
    const bool is_end = stage == 0 || stage == request.layout.pp - 1;
    if (!seen.insert(kinds).second && !is_end && request.layout.chunks == 1) continue;
    const Role role = ImaginedRank(request, stage).role();
    if (role.total_bytes > heaviest.total_bytes) heaviest = role;
  }
  return heaviest;
}

DryRunRequest dry_run_request(const train::RunConfig& config) {
  DryRunRequest request;
  request.config = train::read_model_config(config);
  const bool mtp =
      request.config.num_nextn_predict_layers == 1 && config.train.mtp_weight > 0 && config.train.indexer != "warm-up";
  request.options = train::model_options(config, mtp);
  request.num_micro_batches = config.train.gradient_accumulation;
  request.auxiliary = {mtp ? config.train.mtp_weight : 0, config.train.balance_weight, config.train.indexer_weight,
                       config.train.bias_update_speed};
  request.staging = config.checkpoint.staging;
  return request;
}

}  // namespace temper::plan
