#include "parallel/ranks.h"

#include "base/error.h"
#include "comm/world.h"
#include "layers/dispatch_rounds.h"
#include "parallel/schedule.h"
#include "parallel/stages.h"

namespace temper::parallel {

namespace {

// The groups of a rank, in one order on all of them. join(axis, size) for each that has several ranks.
template <class Join>
void join_axes(Ranks& ranks, const Join& join) {
  const Layout& layout = ranks.layout;
  const int64_t slices = layout.dp * layout.cp, stage = slices * layout.tp;
  const auto set = [&](std::unique_ptr<comm::Comm>& group, Axis axis, int64_t size) {
    if (size > 1) group = join(axis, size);
  };
  set(ranks.dp, Axis::kDp, layout.dp);
  set(ranks.pp, Axis::kPp, layout.pp);
  if (layout.chunks > 1) set(ranks.pp_back, Axis::kPp, layout.pp);
  set(ranks.cp, Axis::kCp, layout.cp);
  set(ranks.tp, Axis::kTp, layout.tp);
  set(ranks.ep, Axis::kEp, layout.ep);
  set(ranks.edp, Axis::kEdp, stage / layout.ep);
  set(ranks.data, Axis::kData, stage);
  set(ranks.slices, Axis::kSlices, slices);
  if (!layout.overlap) return;
  set(ranks.ep_beside, Axis::kEp, layout.ep);
  set(ranks.edp_beside, Axis::kEdp, stage / layout.ep);
  set(ranks.data_beside, Axis::kData, stage);
  set(ranks.slices_beside, Axis::kSlices, slices);
}

}  // namespace

Ranks join_mesh(comm::Comm& world, const Layout& layout) {
  Ranks ranks;
  ranks.world = &world, ranks.layout = layout, ranks.at = mesh_rank(layout, world.rank());
  join_axes(ranks, [&](Axis axis, int64_t) {
    const Group g = group(layout, world.rank(), axis);
    return world.split(g.color, g.key, g.name);
  });
  if (layout.pp == 1) return ranks;
  // Ranks of one place in their stages; the inner stages are left alone.
  const bool is_end = ranks.at.pp == 0 || ranks.at.pp == layout.pp - 1;
  const int64_t in_stage = world.rank() % (world.size() / layout.pp);
  auto ends = world.split(is_end ? in_stage : world.size() + world.rank(), ranks.at.pp, "pipe ends");
  if (is_end) ranks.pipe_ends = std::move(ends);
  return ranks;
}

Ranks imagine_mesh(std::unique_ptr<comm::Comm>& imagined, int64_t rank, const Layout& layout) {
  imagined = comm::null_comm(rank, layout.pp * layout.dp * layout.cp * layout.tp);
  Ranks ranks;
  ranks.world = imagined.get(), ranks.layout = layout, ranks.at = mesh_rank(layout, rank);
  join_axes(ranks, [&](Axis axis, int64_t size) { return comm::null_comm(group(layout, rank, axis).key, size); });
  const bool is_end = ranks.at.pp == 0 || ranks.at.pp == layout.pp - 1;
  if (layout.pp > 1 && is_end) ranks.pipe_ends = comm::null_comm(ranks.at.pp == 0 ? 0 : 1, 2);
  return ranks;
}

std::vector<std::pair<std::string, const comm::Comm*>> Ranks::axes() const {
  std::vector<std::pair<std::string, const comm::Comm*>> axes;
  using Named = std::pair<const char*, const std::unique_ptr<comm::Comm>*>;
  for (const auto& [name, group] : {Named{"dp", &dp},
                                    {"data", &data},
                                    {"slices", &slices},
                                    {"ep", &ep},
                                    {"edp", &edp},
                                    {"cp", &cp},
                                    {"tp", &tp},
                                    {"pp", &pp},
                                    {"pp_back", &pp_back},
                                    {"ep_beside", &ep_beside},
                                    {"edp_beside", &edp_beside},
                                    {"data_beside", &data_beside},
                                    {"slices_beside", &slices_beside}})
    if (*group) axes.emplace_back(name, group->get());
  return axes;
}

void Ranks::place(const model::Config& config, int64_t num_micro_batches, model::ModelOptions& options) const {
  model::ModelPart& part = options.part;
  const int64_t tokens = options.max_document > 0 ? options.max_document : options.max_tokens;
  SiteCosts costs = forward_flops(config, tokens, options.mtp);
  costs.rebuilds = options.recompute != model::Recompute::kNone;
  const std::vector<SiteRange> parts = split_sites(costs, layout.pp, layout.chunks);
  part.chunks.clear();
  for (int64_t chunk = 0; chunk < layout.chunks; ++chunk) part.chunks.push_back(parts[chunk * layout.pp + at.pp]);
  if (layout.pp > 1 && layout.schedule == Schedule::kZeroBubble && options.recompute != model::Recompute::kNone)
    fail(
        ErrorCode::kInvalidArgument,
        "schedule \"zero-bubble\" keeps the activations that recompute = \"block\" or \"full\" drops; take recompute = "
        "\"none\" or another schedule");
  if (layout.pp > 1) {
    const int64_t of_rank = (num_micro_batches + layout.dp - 1) / layout.dp;
    part.num_slots = plan_slots(pipeline_step(layout.schedule, {at.pp, layout.pp, layout.chunks}, of_rank)).num_slots;
    part.weights_later = puts_weights_off(layout.schedule, at.pp);
  }
  part.cp_rank = at.cp, part.cp_size = layout.cp;
  part.tp_rank = at.tp, part.tp_size = layout.tp;
  part.ep_rank = at.ep, part.ep_size = layout.ep;
  if (layout.ep > 1 && part.expert_rows == 0) {
    const int64_t even =
        layers::most_expert_rows({}, options.own_rows(), config.n_routed_experts, config.num_experts_per_tok);
    part.expert_rows = even + even / 4;
  }
  part.share = {comm::group_rank(data.get()), comm::group_size(data.get())};
  part.slice_share = {comm::group_rank(slices.get()), comm::group_size(slices.get())};
  part.expert_share = {comm::group_rank(edp.get()), comm::group_size(edp.get())};
  part.zero = layout.zero;
  part.overlap = layout.overlap && data;
}

}  // namespace temper::parallel
