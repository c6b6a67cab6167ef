// Products with 256-bit vectors and fused multiply-add; bf16 operands are widened while packing.
#include <utility>

#include "backend/cpu/products.h"
#include "backend/cpu/scratch.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma")

namespace {
constexpr int kLanes = 8;
constexpr int kTileRows = 6;
}  // namespace
#define TEMPER_BF16_PAIRS 0
#define TEMPER_AVX512 0
#include "backend/cpu/products_kernel.h"

namespace temper::backend {

ProductKernels product_kernels_avx2() { return {product<F32>, product<WidenedBf16>}; }

}  // namespace temper::backend
#endif  // x86-64
