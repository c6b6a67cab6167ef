// What the vectorised kernels of V4's operations share outside their inner loops. See tile_for_each_isa.h.
#pragma once

#include <cstdint>

#include "backend/cpu/scratch.h"

namespace temper::backend {

// A packed right-hand operand is cut into panels of this many columns, whatever the width of the vectors: element (k,
// n) lies at panel[(n / kPanel) * depth * kPanel + k * kPanel + n % kPanel]; columns beyond the last are zero.
inline constexpr int64_t kPanel = 32;

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
inline int64_t panels_size(int64_t depth, int64_t columns) { return depth * round_up(columns, kPanel); }

// Floats of the calling thread's buffers of scratch.h: what one op shares between its threads, and what one thread of
// it works in.
inline float* call_floats(int64_t count) { return static_cast<float*>(shared_scratch(count * 4)); }
inline float* part_floats(int64_t count) { return static_cast<float*>(kernel_scratch(count * 4)); }

// Cuts a thread's scratch into arrays that start on cache lines. Over a null base it only counts.
class Carver {
 public:
  explicit Carver(float* base) : base_(base) {}
  float* take(int64_t count) {
    float* out = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (count + 15) / 16 * 16;
    return out;
  }
  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

}  // namespace temper::backend
