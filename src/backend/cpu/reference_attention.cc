#include "backend/cpu/reference.h"

namespace temper::backend {

void register_reference_attention(OpTable&) {}

}  // namespace temper::backend
