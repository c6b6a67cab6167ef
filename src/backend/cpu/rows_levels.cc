// Makes the row kernels for every instruction level and chooses this machine's.
#include "backend/cpu/rows.h"

#define TEMPER_KERNELS "backend/cpu/rows_kernels.inc"
#include "backend/cpu/tile_for_each_isa.h"

namespace temper::backend {

const RowKernels& row_kernels() {
  static const RowKernels chosen = TEMPER_BEST_ISA(row_kernels)();
  return chosen;
}

}  // namespace temper::backend
