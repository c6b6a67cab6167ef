#include "backend/cpu/cpu_internal.h"

namespace temper::backend {

void register_products(OpTable&) {}

}  // namespace temper::backend
