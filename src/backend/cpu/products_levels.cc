// Makes the packed products for every instruction level and chooses this machine's.
#include "backend/cpu/products.h"

#define TEMPER_KERNELS "backend/cpu/products_kernels.inc"
#include "backend/cpu/tile_for_each_isa.h"

namespace temper::backend {

const ProductKernels& product_kernels() {
  static const ProductKernels chosen = TEMPER_BEST_ISA(product_kernels)();
  return chosen;
}

}  // namespace temper::backend
