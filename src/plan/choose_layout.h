// [layout] auto = true: the layout whose step is predicted to be the fastest among those that fit into memory.
//
// Candidates are the valid layouts of the world that keep to what the run file gives. Times are formulas
// (layout_time.h); memory is exact: the Book of the heaviest ranks, which the run would allocate from. Equal requests
// give equal choices.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/dry_run.h"
#include "plan/layout_time.h"
#include "train/run_config.h"

namespace temper::plan {

struct LayoutRequest {
  DryRunRequest run;  // without layout
  // What candidates keep to; empty: free.
  struct Given {
    std::optional<int64_t> dp, ep, pp, cp, tp, zero, chunks;
    std::optional<parallel::Schedule> schedule;
  } given;
  bool overlap = false;  // of all candidates
  int64_t num_ranks = 1;
  int64_t memory_bytes = 0;  // of a rank; 0: unknown, everything fits
  RankSpeed speed;
};
// memory_bytes: of a rank, where layout.memory does not say.
LayoutRequest layout_request(const train::RunConfig& config, int64_t num_ranks, int64_t memory_bytes);

struct RankedLayout {
  parallel::Layout layout;
  LayoutTime time;
  Role heaviest;  // stage, layers, slots and bytes of the ranks that need most memory
  bool fits = false;
};

// Fastest first, as far as they were looked at: all that are faster than the chosen one, which is the first that fits,
// and a few slower ones that fit.
struct LayoutRanking {
  std::vector<RankedLayout> layouts;
  size_t chosen = 0;
  int64_t num_candidates = 0;
};
// Throws kOutOfMemory where none fits, naming the one that needs least and what of it is largest; kInvalidArgument
// where no valid layout keeps to what is given.
LayoutRanking rank_layouts(const LayoutRequest& request);

// Lines for people: the chosen layout, what is slower, and why what is faster does not fit.
std::string describe(const LayoutRanking& ranking, const LayoutRequest& request);

// Where the run asks for it, writes into its [layout] what the first rank chooses for all; the least memory_bytes of a
// rank counts. Collective. Returns the lines for people on the first rank.
std::string choose_together(comm::Comm& world, int64_t memory_bytes, train::RunConfig& config);

}  // namespace temper::plan
