// Which vector instructions the kernels of this folder may use, decided once at run time.
#pragma once

#include <cstdint>

namespace temper::backend {

// Levels in ascending order; each includes those below it.
enum class Isa : uint8_t { kBase, kAvx2, kAvx512, kAvx512Bf16 };

// The highest level that this CPU and its operating system offer, or the level named by the environment variable
// TEMPER_ISA (baseline | avx2 | avx512 | avx512-bf16) where that is lower. Throws kInvalidArgument on another name.
Isa best_isa();

const char* isa_name(Isa isa);

}  // namespace temper::backend
