// Which cores a process may use beside others of its machine.
#pragma once

#include <cstdint>

#include "comm/mpi/mpi_requests.h"

namespace temper::comm {

// Of this process alone: those that it is bound to, or all.
int64_t num_bound_cores();

// Each core counts 1/n where n processes of the machine may run on it, rounded down, at least 1: bound to cores of
// their own, processes have these; not bound, they share all. Collective over machine, the processes of one machine.
int64_t share_of_cores(MPI_Comm machine);

}  // namespace temper::comm
