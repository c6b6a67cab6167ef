// One team of threads for the whole process. Workers spin briefly between calls and then sleep, so that a fork costs
// microseconds while work is flowing and nothing when it is not.
#pragma once

#include <cstdint>
#include <functional>

namespace temper {

// Number of threads that parallel_for uses; TEMPER_NUM_THREADS or the cores this process may run on.
int num_threads();

// Sets the team's size; for tests and command-line options, between calls only.
void set_num_threads(int count);

// Calls body(begin, end, thread) on one contiguous part of [0, count) per thread. The partition depends only on count,
// grain and the number of threads, so sums over it are reproducible. Ranges shorter than grain stay on one thread.
// The first exception thrown by body is rethrown here. A call from inside a body runs on the calling thread.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body);

}  // namespace temper
