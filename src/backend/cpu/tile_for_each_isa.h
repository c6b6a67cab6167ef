// Compiles TEMPER_KERNELS, a file without include guard, once for each instruction level: one source, one binary that
// runs on every x86-64 machine and, by the best level alone, on other architectures.
//
//   #define TEMPER_KERNELS "backend/cpu/hyper_kernels.inc"
//   #include "backend/cpu/tile_for_each_isa.h"
//   ... TEMPER_BEST_ISA(some_kernel<float>)(...);
//
// A kernels file opens namespace temper::backend::TEMPER_LEVEL and sees the vectors of tile_lanes.inc and the products
// of tile_product.inc for kLanes f32 lanes. All ordinary headers are included here, before the first change of target,
// so that no inline function of theirs is compiled with instructions that another machine lacks.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend/cpu/isa.h"
#include "backend/cpu/tile.h"
#include "tensor/dtype.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors pass only between functions of one level

#define TEMPER_LEVEL level_base
#define TEMPER_LANES 4
#define TEMPER_BF16_DOT 0
#include "backend/cpu/tile_lanes.inc"
#include "backend/cpu/tile_product.inc"
#include TEMPER_KERNELS
#undef TEMPER_LEVEL
#undef TEMPER_LANES

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define TEMPER_LEVEL level_avx2
#define TEMPER_LANES 8
#include "backend/cpu/tile_lanes.inc"
#include "backend/cpu/tile_product.inc"
#include TEMPER_KERNELS
#undef TEMPER_LEVEL
#undef TEMPER_LANES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define TEMPER_LEVEL level_avx512
#define TEMPER_LANES 16
#include "backend/cpu/tile_lanes.inc"
#include "backend/cpu/tile_product.inc"
#include TEMPER_KERNELS
#undef TEMPER_LEVEL
#undef TEMPER_BF16_DOT
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,avx512bf16")
#define TEMPER_LEVEL level_avx512bf16
#define TEMPER_BF16_DOT 1
#include "backend/cpu/tile_lanes.inc"
#include "backend/cpu/tile_product.inc"
#include TEMPER_KERNELS
#undef TEMPER_LEVEL
#undef TEMPER_LANES
#pragma GCC pop_options

#define TEMPER_BEST_ISA(...)                                       \
  (best_isa() == Isa::kAvx512Bf16 ? &level_avx512bf16::__VA_ARGS__ \
   : best_isa() == Isa::kAvx512   ? &level_avx512::__VA_ARGS__     \
   : best_isa() == Isa::kAvx2     ? &level_avx2::__VA_ARGS__       \
                                  : &level_base::__VA_ARGS__)
#else
#define TEMPER_BEST_ISA(...) (&level_base::__VA_ARGS__)
#endif
#undef TEMPER_BF16_DOT

#pragma GCC diagnostic pop
