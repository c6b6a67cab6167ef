#include "parallel/ranks.h"

namespace temper::parallel {

Ranks join_mesh(comm::Comm& world, const Layout& layout) {
  Ranks ranks;
  ranks.world = &world, ranks.layout = layout, ranks.at = mesh_rank(layout, world.rank());
  const auto join = [&](Axis axis, int64_t size) -> std::unique_ptr<comm::Comm> {
    if (size == 1) return nullptr;
    const Group g = group(layout, world.rank(), axis);
    return world.split(g.color, g.key, g.name);
  };
  const int64_t plane = layout.dp * layout.cp;
  ranks.dp = join(Axis::kDp, layout.dp);
  ranks.ep = join(Axis::kEp, layout.ep);
  ranks.edp = join(Axis::kEdp, plane / layout.ep);
  ranks.data = join(Axis::kData, plane);
  return ranks;
}

void Ranks::place(model::ModelPart& part) const {
  part.ep_rank = at.ep, part.ep_size = layout.ep;
  part.share = {comm::group_rank(data.get()), comm::group_size(data.get())};
  part.expert_share = {comm::group_rank(edp.get()), comm::group_size(edp.get())};
  part.zero = layout.zero;
}

}  // namespace temper::parallel
