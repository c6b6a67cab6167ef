#include "backend/cpu/cpu_internal.h"

namespace temper::backend {

void register_attention(OpTable&) {}

}  // namespace temper::backend
