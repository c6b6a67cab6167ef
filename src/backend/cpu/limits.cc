#include "backend/cpu/limits.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend/cpu/isa.h"
#include "base/clock.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

constexpr int64_t kInstructions = 4'800'000;  // a multiple of the numbers of sums below

struct Work {
  void (*run)(float*);  // kInstructions instructions
  double flops_per_instruction;
};

// kInstructions instructions on independent sums. Operands come from volatile memory, else the compiler would see that
// all sums are the same; one such load per round costs nothing beside its arithmetic.
#define TEMPER_SUMS(Vector, chains, step)                  \
  volatile float* value = out;                             \
  Vector sum[chains];                                      \
  for (auto& s : sum) s = Vector{} + *value;               \
  for (int64_t i = 0; i < kInstructions / (chains); ++i) { \
    const Vector x = Vector{} + *value;                    \
    _Pragma("GCC unroll 16") for (auto& s : sum) step;     \
  }                                                        \
  for (const auto& s : sum) *value = *value + s[0]

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) void dot_bf16_512(float* out) {
  TEMPER_SUMS(__m512, 16, s = _mm512_dpbf16_ps(s, (__m512bh)x, (__m512bh)x));
}
__attribute__((target("avx512f"))) void fma_512(float* out) { TEMPER_SUMS(__m512, 16, s = _mm512_fmadd_ps(x, x, s)); }
__attribute__((target("avx2,fma"))) void fma_256(float* out) {
  TEMPER_SUMS(__m256, 12, s = _mm256_fmadd_ps(x, x, s));  // 12 of the 16 registers
}
#endif

// Any CPU: 128-bit vectors, whatever the compiler makes of a multiplication and an addition.
typedef float Floats128 __attribute__((vector_size(16)));
void multiply_add_128(float* out) { TEMPER_SUMS(Floats128, 8, s += x * x); }

Work f32_work() {
  switch (best_isa()) {
#if defined(__x86_64__)
    case Isa::kAvx512Bf16:
    case Isa::kAvx512:
      return {fma_512, 32};
    case Isa::kAvx2:
      return {fma_256, 16};
#endif
    default:
      return {multiply_add_128, 8};
  }
}

Work bf16_work() {
#if defined(__x86_64__)
  if (best_isa() == Isa::kAvx512Bf16) return {dot_bf16_512, 64};
#endif
  return f32_work();
}

// The sum over threads of each one's best rate. All threads work at once, as in a step, but a trial is short (about
// half a millisecond) and timed by its own thread, so that a busy neighbour spoils some trials and not the figure.
double measure_flops(const Work& work, double seconds) {
  std::vector<double> best(static_cast<size_t>(num_threads()), 0);
  parallel_for(num_threads(), 1, [&](int64_t, int64_t, int thread) {
    const double start = now_seconds();
    for (double begin = start; begin - start < seconds; begin = now_seconds()) {
      float value = 0;
      work.run(&value);
      double& mine = best[static_cast<size_t>(thread)];
      mine = std::max(mine, work.flops_per_instruction * kInstructions / (now_seconds() - begin));
    }
  });
  return std::accumulate(best.begin(), best.end(), 0.0);
}

// Bandwidth is shared, so a trial counts when all threads have done their part.
double measure_memory(double seconds) {
  constexpr int64_t kCount = 64 << 20;
  const auto values = std::make_unique<float[]>(kCount);
  const double start = now_seconds();
  double best = 0;
  for (double begin = start; begin - start < seconds; begin = now_seconds()) {
    parallel_for(kCount, 1, [x = values.get()](int64_t from, int64_t to, int) {
#pragma omp simd
      for (int64_t i = from; i < to; ++i) x[i] = x[i] + 1.0F;
    });
    best = std::max(best, 2.0 * kCount * sizeof(float) / (now_seconds() - begin));
  }
  return best;
}

}  // namespace

MachineLimits measure_limits(double seconds_each) {
  return {measure_flops(bf16_work(), seconds_each), measure_flops(f32_work(), seconds_each),
          measure_memory(seconds_each)};
}

double peak_flops(bool bf16) {
  static std::mutex mutex;
  static std::map<std::pair<bool, int>, double> known;
  const std::lock_guard lock(mutex);
  double& flops = known[{bf16, num_threads()}];
  if (flops == 0) flops = measure_flops(bf16 ? bf16_work() : f32_work(), 0.1);
  return flops;
}

}  // namespace temper::backend
