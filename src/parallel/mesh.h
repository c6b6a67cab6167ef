// Ranks as a mesh: which part of the model, of the data and of the state each one has (post-training 4.1).
//
//   world = pp * dp * cp * tp          rank = ((pp_rank * dp + dp_rank) * cp + cp_rank) * tp + tp_rank
//
// Experts see the dp * cp * tp ranks of a stage another way: groups of ep neighbours share one set of experts, and
// edp = dp * cp * tp / ep ranks have the same experts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "parallel/schedule.h"

namespace temper::parallel {

// [layout] of a run file. dp 0: what the world leaves.
struct Layout {
  int64_t dp = 0, ep = 1, pp = 1, cp = 1, tp = 1;
  // What the ranks with equal weights keep once: 0 nothing, 1 masters and moments, 2 also gradients, 3 also weights.
  int64_t zero = 1;
  Schedule schedule = Schedule::kOneFOneB;  // of the pipeline
  int64_t chunks = 1;                       // runs of layers that each of its stages has
  bool overlap = false;                     // weights, gradients, rows for experts travel beside computation
  bool operator==(const Layout&) const = default;
  std::string to_string() const;  // "dp 4, ep 2, zero 1"; axes of one rank, and an open dp, are left out
};

// Where a rank is.
struct MeshRank {
  int64_t pp = 0, dp = 0, cp = 0, tp = 0;
  // Within the plane of its stage: plane = (dp * cp_size + cp) * tp_size + tp = edp * ep_size + ep.
  int64_t ep = 0, edp = 0;
};

// dp filled in. Throws kInvalidArgument where the axes do not divide the world or the model (heads and output groups by
// tp, experts by ep, half a layer for every chunk of every stage, ...), with what was asked, what was found, and the
// nearest layouts that are valid; and where schedule, pp and chunks do not fit each other.
Layout resolve(const Layout& layout, int64_t world_size, const model::Config& config);

// Every layout of world_size ranks that resolve takes, with the zero and, in pipelines, schedule and chunks of `like`:
// in the order of pp, then cp, tp and ep.
std::vector<Layout> valid_layouts(int64_t world_size, const model::Config& config, const Layout& like);

// The most ranks, not more than at_most, that the axes can share out: an open dp takes what is left, a given one is
// kept. 0: none. Whether the model allows it, resolve tells.
int64_t largest_world(const Layout& layout, int64_t at_most);

// Of the functions below, layout is resolved and rank one of its world.
MeshRank mesh_rank(const Layout& layout, int64_t rank);

// Along which the ranks of a group differ. kData: dp, cp and tp, the whole stage: the ranks with the same weights, but
// for experts and for what tp cuts. kSlices: dp and cp, the ranks with the same slices of what tp cuts.
enum class Axis : uint8_t { kDp, kCp, kTp, kPp, kEp, kEdp, kData, kSlices };

// A rank's group along an axis, as Comm::split of the world wants it: ranks of one color are a group, in the order of
// key, which runs from 0 along the axis. color is the lowest world rank of the group.
struct Group {
  const char* name;  // "dp"
  int64_t color, key;
};
Group group(const Layout& layout, int64_t rank, Axis axis);

}  // namespace temper::parallel
