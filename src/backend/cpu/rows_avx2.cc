// Row kernels with 256-bit vectors and fused multiply-add.
#include "backend/cpu/rows.h"
#include "backend/cpu/vector_math.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include "backend/cpu/rows_kernel.h"

namespace temper::backend {

RowKernels row_kernels_avx2() { return kRowKernels; }

}  // namespace temper::backend
#endif  // x86-64
