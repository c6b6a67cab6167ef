#include "train/evaluate.h"

#include "parallel/schedule.h"

namespace temper::train {

namespace {

// Through all parts of the pipeline, if there is one; only the last has the results.
model::TokenResults forward(layers::Ctx& ctx, model::Model& model, const layers::MicroBatch& batch) {
  comm::Comm* pp = ctx.groups.pp;
  const parallel::PipelinePlace place{comm::group_rank(pp), comm::group_size(pp)};
  for (int64_t chunk = 0; chunk < model.num_chunks(); ++chunk) {
    model.select(0, chunk);
    model.begin(ctx, batch);
    const bool passes = model.input_streams().dim(0) > 0;
    if (!model.is_first_part() && passes)
      pp->recv(ctx.stream, model.input_streams(), place.stage_before(), {"activations"});
    model.forward_layers(ctx);
    if (model.is_last_part()) return model.logprobs(ctx);
    if (passes) pp->send(ctx.stream, model.output_streams(), place.stage_after(), {"activations"});
  }
  return {};
}

}  // namespace

HeldoutResult evaluate(layers::Ctx& ctx, model::Model& model, std::span<const layers::MicroBatch> batches) {
  struct Sums {
    double loss = 0, weight = 0, num_correct = 0, num_targets = 0;
  };
  std::vector<Sums> sums_M(batches.size());
  comm::Comm* dp = ctx.groups.dp;
  const layers::MicroBatch empty{{}, {0}, {}, {}};
  const auto num_ranks = static_cast<size_t>(comm::group_size(dp)), rank = static_cast<size_t>(comm::group_rank(dp));
  for (size_t first = 0; first < batches.size(); first += num_ranks) {
    const size_t m = first + rank;
    const layers::MicroBatch& batch = m < batches.size() ? batches[m] : empty;
    const model::TokenResults results = forward(ctx, model, batch);
    // Ranks that share the micro-batch have equal results: they count once.
    const bool counts = comm::group_rank(ctx.groups.cp) == 0 && comm::group_rank(ctx.groups.tp) == 0;
    if (!model.is_last_stage() || !counts) continue;
    for (size_t t = 0; t < batch.tokens.size(); ++t) {
      if (batch.targets[t] < 0 || batch.weights[t] == 0) continue;
      sums_M[m].loss -= batch.weights[t] * results.logp_T[t];
      sums_M[m].weight += batch.weights[t];
      sums_M[m].num_correct += results.best_T[t] == batch.targets[t];
      ++sums_M[m].num_targets;
    }
  }
  for (comm::Comm* ranks : {ctx.groups.data, ctx.groups.pp}) {
    const View sums(sums_M.data(), DType::kF64, {static_cast<int64_t>(4 * sums_M.size())});
    if (ranks) ranks->all_reduce(nullptr, sums, comm::Reduce::kSum, {"held-out loss"});
  }
  Sums total;
  for (const Sums& sums : sums_M) {
    total.loss += sums.loss, total.weight += sums.weight;
    total.num_correct += sums.num_correct, total.num_targets += sums.num_targets;
  }
  if (total.num_targets == 0) return {};
  return {total.loss / total.weight, total.num_correct / total.num_targets, static_cast<int64_t>(total.num_targets)};
}

}  // namespace temper::train
