// Where ranks come from.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "comm/comm.h"

namespace temper::comm {

// A world of one rank.
std::unique_ptr<Comm> self_comm();

// A rank of an imagined world, for plans: nothing travels, calls and bytes are counted. It cannot be split.
std::unique_ptr<Comm> null_comm(int64_t rank, int64_t size);

// Runs body on num_ranks threads, each one rank of a world, and returns when all are done. Where a body throws, the
// others are aborted, and the first cause is rethrown. For tests; views are in host memory. parallel_for inside the
// bodies shares one team.
void run_ranks(int64_t num_ranks, const std::function<void(Comm& world)>& body);

// The ranks that this process was launched among. One for a process; ends after all groups of comm().
class World {
 public:
  // Without close, this rank has failed: the others are told, and the process must end with a code that is not 0, upon
  // which the launcher ends those that do not hear.
  virtual ~World() = default;
  virtual Comm& comm() = 0;
  // For this rank's threads: the cores that it may run on, shared out with the other ranks of its machine that may,
  // too.
  virtual int64_t num_cores() const = 0;
  // Ranks of this machine, which share its memory.
  virtual int64_t num_ranks_here() const = 0;
  // When all ranks have come to it. Throws kPeer.
  virtual void close() = 0;
};

// By the environment that a launcher leaves: mpirun (OMPI_COMM_WORLD_SIZE), srun with its pmix plugin (PMIX_RANK),
// others of that kind (PMI_RANK); without them, or with one rank, a world of one, which costs nothing. Launchers that
// set only RANK and WORLD_SIZE, and srun without the plugin, are refused (kUnsupported): each rank would be a world of
// its own. Ranks of one machine meet in shared memory. TEMPER_RANKS_PER_NODE=N takes every N ranks of a machine for a
// machine of their own, so that the path between machines can be tested on one.
std::unique_ptr<World> open_world();

}  // namespace temper::comm
