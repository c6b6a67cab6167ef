// Products with the bf16 dot-product instruction of AVX-512; f32 products with 512-bit vectors.
#include <utility>

#include "backend/cpu/products.h"
#include "backend/cpu/scratch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,prefer-vector-width=512")

namespace {
constexpr int kLanes = 16;
constexpr int kTileRows = 12;
}  // namespace
#define TEMPER_BF16_PAIRS 1
#define TEMPER_AVX512 1
#include "backend/cpu/products_kernel.h"

namespace temper::backend {

ProductKernels product_kernels_avx512bf16() { return {product<F32>, product<PairedBf16>}; }

}  // namespace temper::backend
#endif  // x86-64
