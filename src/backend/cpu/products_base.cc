// Products for any CPU: 128-bit vectors, bf16 operands widened while packing.
#include <utility>

#include "backend/cpu/products.h"
#include "backend/cpu/scratch.h"

namespace {
constexpr int kLanes = 4;
constexpr int kTileRows = 6;
}  // namespace
#define TEMPER_BF16_PAIRS 0
#define TEMPER_AVX512 0
#include "backend/cpu/products_kernel.h"

namespace temper::backend {

ProductKernels product_kernels_base() { return {product<F32>, product<WidenedBf16>}; }

}  // namespace temper::backend
