// What this machine can do at best, measured: the denominators of every percentage that is printed.
#pragma once

namespace temper::backend {

struct MachineLimits {
  double bf16_flops = 0;               // per second, all threads; without a bf16 instruction the f32 figure
  double f32_flops = 0;                // fused multiply-adds, all threads
  double memory_bytes_per_second = 0;  // updating a large array in place: bytes read + bytes written
};

// Runs register-only arithmetic and an in-place update of 256 MiB on all threads of base/thread.h for about
// `seconds_each` each; the best of several trials counts, since a busy neighbour only ever slows a trial.
MachineLimits measure_limits(double seconds_each = 0.2);

// One figure of it: FLOP/s of products in bf16 or f32. Measured once for each size of the team (a tenth of a second),
// so that a process that asks again gets the same answer at no cost.
double peak_flops(bool bf16);

}  // namespace temper::backend
