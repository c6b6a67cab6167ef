// Monotonic seconds since an arbitrary start.
#pragma once

#include <chrono>

namespace temper {

inline double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace temper
