#include "parallel/ranks.h"

#include "base/error.h"
#include "comm/world.h"
#include "layers/dispatch_rounds.h"
#include "parallel/schedule.h"
#include "parallel/stages.h"

namespace temper::parallel {

namespace {

void refuse_what_is_not_here(const Layout& layout) {
  if (layout.cp * layout.tp == 1) return;
  fail(ErrorCode::kUnsupported,
       "[layout] {}: this build has no context or tensor parallelism yet; set layout.cp and layout.tp to 1",
       layout.to_string());
}

}  // namespace

Ranks join_mesh(comm::Comm& world, const Layout& layout) {
  refuse_what_is_not_here(layout);
  Ranks ranks;
  ranks.world = &world, ranks.layout = layout, ranks.at = mesh_rank(layout, world.rank());
  const auto join = [&](Axis axis, int64_t size) -> std::unique_ptr<comm::Comm> {
    if (size == 1) return nullptr;
    const Group g = group(layout, world.rank(), axis);
    return world.split(g.color, g.key, g.name);
  };
  const int64_t plane = layout.dp * layout.cp;
  ranks.dp = join(Axis::kDp, layout.dp);
  ranks.pp = join(Axis::kPp, layout.pp);
  if (layout.pp > 1) {
    // Ranks of one place in their stages; the inner stages are left alone.
    const bool is_end = ranks.at.pp == 0 || ranks.at.pp == layout.pp - 1;
    const int64_t in_stage = world.rank() % (world.size() / layout.pp);
    auto ends = world.split(is_end ? in_stage : world.size() + world.rank(), ranks.at.pp, "pipe ends");
    if (is_end) ranks.pipe_ends = std::move(ends);
  }
  ranks.ep = join(Axis::kEp, layout.ep);
  ranks.edp = join(Axis::kEdp, plane / layout.ep);
  ranks.data = join(Axis::kData, plane);
  return ranks;
}

Ranks imagine_mesh(std::unique_ptr<comm::Comm>& imagined, int64_t rank, const Layout& layout) {
  refuse_what_is_not_here(layout);
  const int64_t world_size = layout.pp * layout.dp, plane = layout.dp;
  imagined = comm::null_comm(rank, world_size);
  Ranks ranks;
  ranks.world = imagined.get(), ranks.layout = layout, ranks.at = mesh_rank(layout, rank);
  const auto join = [&](Axis axis, int64_t size) {
    return size == 1 ? nullptr : comm::null_comm(group(layout, rank, axis).key, size);
  };
  ranks.dp = join(Axis::kDp, layout.dp);
  ranks.pp = join(Axis::kPp, layout.pp);
  ranks.ep = join(Axis::kEp, layout.ep);
  ranks.edp = join(Axis::kEdp, plane / layout.ep);
  ranks.data = join(Axis::kData, plane);
  const bool is_end = ranks.at.pp == 0 || ranks.at.pp == layout.pp - 1;
  if (layout.pp > 1 && is_end) ranks.pipe_ends = comm::null_comm(ranks.at.pp == 0 ? 0 : 1, 2);
  return ranks;
}

std::vector<std::pair<std::string, const comm::Comm*>> Ranks::axes() const {
  std::vector<std::pair<std::string, const comm::Comm*>> axes;
  for (const auto& [name, group] : {std::pair{"dp", &dp}, {"data", &data}, {"ep", &ep}, {"edp", &edp}, {"pp", &pp}})
    if (*group) axes.emplace_back(name, group->get());
  return axes;
}

void Ranks::place(const model::Config& config, int64_t num_micro_batches, model::ModelOptions& options) const {
  model::ModelPart& part = options.part;
  const int64_t tokens = options.max_document > 0 ? options.max_document : options.max_tokens;
  const LayerRange layers = split_layers(forward_flops(config, tokens, options.mtp), layout.pp, 1)[at.pp];
  part.first_layer = layers.begin;
  part.end_layer = layers.end;
  if (layout.pp > 1) {
    const int64_t of_rank = (num_micro_batches + layout.dp - 1) / layout.dp;
    const auto list = pipeline_step(Schedule::kOneFOneB, {at.pp, layout.pp, 1}, of_rank);
    part.num_slots = num_slots(list, 0);
  }
  part.ep_rank = at.ep, part.ep_size = layout.ep;
  if (layout.ep > 1 && part.expert_rows == 0) {
    const int64_t even =
        layers::most_expert_rows({}, options.max_tokens, config.n_routed_experts, config.num_experts_per_tok);
    part.expert_rows = even + even / 4;
  }
  part.share = {comm::group_rank(data.get()), comm::group_size(data.get())};
  part.expert_share = {comm::group_rank(edp.get()), comm::group_size(edp.get())};
  part.zero = layout.zero;
}

}  // namespace temper::parallel
