// Prints what this machine can do at best: one line per limit. Arguments: seconds per measurement (default 1).
#include "backend/cpu/limits.h"

#include <fmt/format.h>

#include <cstdlib>

#include "backend/registry.h"

int main(int argc, char** argv) {
  const auto limits = temper::backend::measure_limits(argc > 1 ? std::atof(argv[1]) : 1.0);
  fmt::print("{}\n", temper::backend::cpu().device.info().name);
  fmt::print("bf16 dot products  {:8.1f} GFLOP/s\n", limits.bf16_flops * 1e-9);
  fmt::print("f32 multiply-adds  {:8.1f} GFLOP/s\n", limits.f32_flops * 1e-9);
  fmt::print("memory, in place   {:8.1f} GB/s\n", limits.memory_bytes_per_second * 1e-9);
}
