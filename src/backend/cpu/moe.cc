#include "backend/cpu/cpu_internal.h"

namespace temper::backend {

void register_moe(OpTable&) {}

}  // namespace temper::backend
