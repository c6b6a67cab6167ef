// Row kernels for any CPU.
#include "backend/cpu/rows.h"
#include "backend/cpu/vector_math.h"

#include "backend/cpu/rows_kernel.h"

namespace temper::backend {

RowKernels row_kernels_base() { return kRowKernels; }

}  // namespace temper::backend
