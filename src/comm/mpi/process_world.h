// A world of processes that an MPI launcher has started.
#pragma once

#include <memory>
#include <vector>

#include "comm/mpi/node_watch.h"
#include "comm/shared/rank.h"
#include "comm/world.h"

namespace temper::comm {

class ProcessWorld : public World {
 public:
  // ranks_per_node: 0 as it is; N: every N ranks of a machine are taken for a machine of their own.
  explicit ProcessWorld(int64_t ranks_per_node);
  ~ProcessWorld() override;
  Comm& comm() override { return *comm_; }
  int64_t num_cores() const override { return num_cores_; }
  int64_t num_ranks_here() const override { return num_ranks_here_; }
  void close() override;

 private:
  // The ranks of this machine, and one block of memory for them.
  MPI_Comm find_node(int64_t ranks_per_node);
  Block make_block(MPI_Comm node, int64_t num_ranks);

  std::unique_ptr<NodeWatch> watch_;  // none where all ranks are on one machine
  std::shared_ptr<SharedRank> me_;
  std::unique_ptr<Comm> comm_;
  int64_t num_cores_ = 1, num_ranks_here_ = 1;
  bool closed_ = false;
};

}  // namespace temper::comm
