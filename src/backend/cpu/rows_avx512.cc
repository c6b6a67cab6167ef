// Row kernels with 512-bit vectors.
#include "backend/cpu/rows.h"
#include "backend/cpu/vector_math.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")
#include "backend/cpu/rows_kernel.h"

namespace temper::backend {

RowKernels row_kernels_avx512() { return kRowKernels; }

}  // namespace temper::backend
#endif  // x86-64
