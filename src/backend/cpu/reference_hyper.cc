#include "backend/cpu/reference.h"

namespace temper::backend {

void register_reference_hyper(OpTable&) {}

}  // namespace temper::backend
