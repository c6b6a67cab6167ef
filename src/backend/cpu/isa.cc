#include "backend/cpu/isa.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string_view>

#include "base/error.h"

namespace temper::backend {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512-bf16"};

Isa detected_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return Isa::kAvx512Bf16;
  if (avx512) return Isa::kAvx512;
  if (avx2) return Isa::kAvx2;
#endif
  return Isa::kBase;
}

Isa chosen_isa() {
  const Isa detected = detected_isa();
  const char* text = std::getenv("TEMPER_ISA");
  if (text == nullptr || *text == '\0') return detected;
  const auto* found = std::find(std::begin(kNames), std::end(kNames), std::string_view(text));
  if (found == std::end(kNames)) {
    fail(ErrorCode::kInvalidArgument,
         "TEMPER_ISA={}: no such level; use one of baseline, avx2, avx512, avx512-bf16, or unset it", text);
  }
  return std::min(detected, static_cast<Isa>(found - std::begin(kNames)));
}

}  // namespace

Isa best_isa() {
  static const Isa isa = chosen_isa();
  return isa;
}

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

}  // namespace temper::backend
