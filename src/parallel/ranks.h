// A rank's place in the mesh, and the groups that it belongs to.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/comm.h"
#include "layers/ctx.h"
#include "parallel/mesh.h"
#include "parallel/weights.h"

namespace temper::parallel {

struct Ranks {
  comm::Comm* world = nullptr;
  Layout layout;
  MeshRank at;
  std::unique_ptr<comm::Comm> dp, pp, cp, tp, ep, edp, data, slices;  // null along axes of one rank
  // The ranks of pp again, for gradients: where stages have several chunks, two ranks exchange both kinds of messages
  // both ways, and not in one order.
  std::unique_ptr<comm::Comm> pp_back;
  std::unique_ptr<comm::Comm> pipe_ends;  // first and last stage; null elsewhere
  // With overlap: the same ranks again, for what travels beside computation.
  std::unique_ptr<comm::Comm> ep_beside, edp_beside, data_beside, slices_beside;

  layers::Groups groups() const {
    return {world,    dp.get(),   pp.get(),       pp_back ? pp_back.get() : pp.get(), ep.get(), cp.get(),
            tp.get(), data.get(), ep_beside.get()};
  }
  EqualRanks equal(bool mtp) const {
    comm::Comm* ends = mtp ? pipe_ends.get() : nullptr;
    if (layout.overlap) return {data_beside.get(), slices_beside.get(), edp_beside.get(), ends};
    return {data.get(), slices.get(), edp.get(), ends};
  }
  // What the layout says of a rank's part of a model that is trained in steps of so many micro-batches, of all ranks.
  // expert_rows 0 becomes a quarter more than even loads bring: the memory is then about that of one rank, and uneven
  // loads seldom need a further round.
  // Throws kInvalidArgument where a zero-bubble pipeline should rebuild activations.
  void place(const model::Config& config, int64_t num_micro_batches, model::ModelOptions& options) const;
  // Those groups of it that have several ranks, by name.
  std::vector<std::pair<std::string, const comm::Comm*>> axes() const;
  // Whether the rank speaks for all: prints, and writes what is written once.
  bool is_first() const { return comm::group_rank(world) == 0; }
};

// Splits the world; layout is resolved. Collective. world must outlive the result.
Ranks join_mesh(comm::Comm& world, const Layout& layout);

// The same of an imagined world (comm::null_comm): rank `rank` of layout.pp * dp * cp * tp. imagined: where the world
// lives.
Ranks imagine_mesh(std::unique_ptr<comm::Comm>& imagined, int64_t rank, const Layout& layout);

}  // namespace temper::parallel
