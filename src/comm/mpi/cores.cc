#include "comm/mpi/cores.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace temper::comm {
namespace {

cpu_set_t bound_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return cores;
  const auto online = std::min<int64_t>(CPU_SETSIZE, sysconf(_SC_NPROCESSORS_ONLN));
  for (int64_t core = 0; core < online; ++core) CPU_SET(core, &cores);
  return cores;
}

}  // namespace

int64_t num_bound_cores() {
  const cpu_set_t mine = bound_cores();
  return std::max(1, CPU_COUNT(&mine));
}

int64_t share_of_cores(MPI_Comm machine) {
  const cpu_set_t mine = bound_cores();
  std::array<int, CPU_SETSIZE> num_processes{};
  for (size_t core = 0; core < num_processes.size(); ++core) num_processes[core] = CPU_ISSET(core, &mine) ? 1 : 0;
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, num_processes.data(), CPU_SETSIZE, MPI_INT, MPI_SUM, machine), "start");
  double share = 0;
  for (size_t core = 0; core < num_processes.size(); ++core) {
    if (CPU_ISSET(core, &mine)) share += 1.0 / num_processes[core];
  }
  constexpr double kRounding = 1e-6;  // of a sum of thirds
  return std::max<int64_t>(1, static_cast<int64_t>(std::floor(share + kRounding)));
}

}  // namespace temper::comm
