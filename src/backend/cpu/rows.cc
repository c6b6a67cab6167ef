#include "backend/cpu/cpu_internal.h"

namespace temper::backend {

void register_rows(OpTable&) {}

}  // namespace temper::backend
