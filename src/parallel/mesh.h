// Ranks as a mesh: which part of the model, of the data and of the state each one has (post-training 4.1).
//
//   world = pp * dp * cp * tp          rank = ((pp_rank * dp + dp_rank) * cp + cp_rank) * tp + tp_rank
//
// Experts see the dp * cp ranks of a stage another way: groups of ep neighbours share one set of experts, and
// edp = dp * cp / ep ranks have the same experts.
#pragma once

#include <cstdint>
#include <string>

#include "model/config.h"

namespace temper::parallel {

// [layout] of a run file. dp 0: what the world leaves.
struct Layout {
  int64_t dp = 0, ep = 1, pp = 1, cp = 1, tp = 1;
  // What the ranks with equal weights keep once: 0 nothing, 1 masters and moments, 2 also gradients, 3 also weights.
  int64_t zero = 1;
  bool operator==(const Layout&) const = default;
  std::string to_string() const;  // "dp 4, ep 2, zero 1"; axes of one rank are left out
};

// Where a rank is.
struct MeshRank {
  int64_t pp = 0, dp = 0, cp = 0, tp = 0;
  int64_t ep = 0, edp = 0;  // within the dp * cp plane: plane = dp * cp_size + cp; ep = plane % ep_size
};

// dp filled in. Throws kInvalidArgument where the axes do not divide the world or the model (heads and output groups by
// tp, experts by ep, no more stages than layers, ...), with what was asked, what was found, and the nearest layouts
// that are valid.
Layout resolve(const Layout& layout, int64_t world_size, const model::Config& config);

MeshRank mesh_rank(const Layout& layout, int64_t rank);

}  // namespace temper::parallel
