// What the vectorised kernels of V4's operations share outside their inner loops. See tile_for_each_isa.h.
#pragma once

#include <cstdint>

namespace temper::backend {

// A packed right-hand operand is cut into panels of this many columns, whatever the width of the vectors: element (k,
// n) lies at panel[(n / kPanel) * depth * kPanel + k * kPanel + n % kPanel]; columns beyond the last are zero.
inline constexpr int64_t kPanel = 32;

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
inline int64_t panels_size(int64_t depth, int64_t columns) { return depth * round_up(columns, kPanel); }

// 64-byte aligned floats that live as long as the calling thread and are kept for its next call; contents are
// irrelevant. At most one block of each kind is in use: `call` for what one op shares between threads, `part` for what
// one thread works in.
float* call_scratch(int64_t num_floats);
float* part_scratch(int64_t num_floats);

}  // namespace temper::backend
