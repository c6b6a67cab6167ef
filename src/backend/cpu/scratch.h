// Working memory of the CPU kernels. A buffer grows to the largest request that it has seen and is kept, so that a run
// whose shapes repeat allocates nothing after its first step. Contents are undefined; a further call of the same
// function on the same thread may return the same memory.
#pragma once

#include <cstdint>

namespace temper::backend {

// The calling thread's buffer for the inside of one kernel (packed panels). 4096-byte aligned.
void* kernel_scratch(int64_t num_bytes);

// The calling thread's buffer for one op, for its workers to share; apart from kernel_scratch, which the kernels of the
// op may use at the same time.
void* shared_scratch(int64_t num_bytes);

}  // namespace temper::backend
