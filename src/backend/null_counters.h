// What the null backend has counted since the last reset. One set of counters for the process: one planner runs at a
// time.
#pragma once

#include <array>
#include <cstdint>

#include "backend/ops.h"

namespace temper::backend {

struct OpCount {
  int64_t calls = 0;
  double flops = 0;  // by the formula of ops.def
  double bytes = 0;  // operands read (In, InOut) plus operands written (Out, InOut)
};

struct NullCounters {
  std::array<OpCount, static_cast<size_t>(OpId::kCount)> ops{};
  int64_t allocated_bytes = 0;       // alive now
  int64_t peak_allocated_bytes = 0;  // most alive at once
  double copied_bytes = 0;           // between host and device, both ways

  const OpCount& operator[](OpId id) const { return ops[static_cast<size_t>(id)]; }
  OpCount total() const;
};

const NullCounters& null_counters();

// Sets all counts to zero, except the bytes that are alive.
void reset_null_counters();

}  // namespace temper::backend
