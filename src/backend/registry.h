// The backends of this build.
#pragma once

#include "backend/ops.h"

namespace temper::backend {

// Scalar reference on the CPU: every op, written as its equation, in double when the run is f64. The judge of all
// others.
const Backend& cpu_reference();

// The fast CPU backend: oneDNN products and vectorised kernels for f32 and bf16; chooses by what the CPU can do.
const Backend& cpu();

// Moves no data and counts everything: calls, flops and bytes by op, bytes allocated. alloc returns an address that
// must not be read. For plans and tests.
const Backend& null_backend();

}  // namespace temper::backend
