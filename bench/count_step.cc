// The fixed tiny step that bench/count counts: every kind of layer, one thread, no clock.
//
//   build/bench/count_step fp32|bf16      prints "arena_bytes N" and "heap_bytes N"; run from the repository's root
//
// The first step warms what is kept between steps; the second is counted_step(), by whose name callgrind collects.
#include <fmt/format.h>

#include <cstdlib>
#include <new>
#include <string_view>

#include "base/thread.h"
#include "step_rig.h"

namespace {

int64_t heap_bytes = 0;  // that operator new gave out since the start: it has no other place to say so

}  // namespace

void* operator new(size_t num_bytes) {
  heap_bytes += static_cast<int64_t>(num_bytes);
  if (void* memory = std::malloc(num_bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

// With a plain name and out of line, so that callgrind finds it.
extern "C" __attribute__((noinline)) void counted_step(temper::bench::Bench& bench, temper::layers::Ctx& ctx) {
  bench.step(ctx);
}

int main(int argc, char** argv) {
  using namespace temper;
  const std::string_view name = argc == 2 ? argv[1] : "";
  if (name != "fp32" && name != "bf16") {
    fmt::print(stderr, "usage: count_step fp32|bf16\n");
    return 2;
  }
  set_num_threads(1);
  const auto precision = name == "bf16" ? layers::Precision::kBf16 : layers::Precision::kFp32;
  const backend::Backend& backend = backend::cpu();
  backend::Stream* stream = backend.device.stream_create();
  layers::Ctx ctx = bench::make_ctx(backend, stream, precision);
  {
    bench::Bench bench(backend, {"count", "bench/count_config.json", 160, 160}, precision);
    bench.prepare(ctx);
    bench.step(ctx);
    const int64_t before = heap_bytes;
    counted_step(bench, ctx);
    fmt::print("arena_bytes {}\nheap_bytes {}\n", bench.planned_bytes(), heap_bytes - before);
  }
  backend.device.stream_destroy(stream);
  return 0;
}
