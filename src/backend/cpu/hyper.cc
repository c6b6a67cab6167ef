#include "backend/cpu/cpu_internal.h"

namespace temper::backend {

void register_hyper(OpTable&) {}

}  // namespace temper::backend
