#include <cstdlib>
#include <string>

#include "base/error.h"
#include "comm/mpi/cores.h"
#include "comm/mpi/process_world.h"
#include "comm/world.h"

namespace temper::comm {
namespace {

class SelfWorld : public World {
 public:
  Comm& comm() override { return *comm_; }
  int64_t num_cores() const override { return num_bound_cores(); }
  int64_t num_ranks_here() const override { return 1; }
  void close() override {}

 private:
  std::unique_ptr<Comm> comm_ = self_comm();
};

// 0 where the variable is not there.
int64_t number_in(const char* variable) {
  const char* text = std::getenv(variable);
  return text ? std::atoll(text) : 0;
}

bool launched_for_mpi() {
  if (std::getenv("OMPI_COMM_WORLD_SIZE")) return number_in("OMPI_COMM_WORLD_SIZE") > 1;
  return std::getenv("PMIX_RANK") || std::getenv("PMI_RANK");
}

}  // namespace

std::unique_ptr<World> open_world() {
  if (launched_for_mpi()) return std::make_unique<ProcessWorld>(number_in("TEMPER_RANKS_PER_NODE"));
  // srun leaves the first two only in the processes of a step, not in a batch script.
  if (std::getenv("SLURM_STEP_ID") && number_in("SLURM_STEP_NUM_TASKS") > 1) {
    fail(ErrorCode::kUnsupported,
         "srun started {} tasks that cannot find one another; start them with srun --mpi=pmix, or use mpirun",
         number_in("SLURM_STEP_NUM_TASKS"));
  }
  if (std::getenv("RANK") && !std::getenv("OMPI_COMM_WORLD_SIZE") && number_in("WORLD_SIZE") > 1) {
    fail(ErrorCode::kUnsupported,
         "RANK and WORLD_SIZE = {} are set, but a launcher that leaves only these is not supported; start the ranks "
         "with mpirun -n {} or srun --mpi=pmix, or unset WORLD_SIZE for one rank",
         number_in("WORLD_SIZE"), number_in("WORLD_SIZE"));
  }
  return std::make_unique<SelfWorld>();
}

}  // namespace temper::comm
