// The CPU as a device. Memory comes straight from the system in whole pages, which are zero when first touched; big
// blocks ask for huge pages, since a step walks through gigabytes.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "backend/cpu/cpu_internal.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/limits.h"
#include "backend/cpu/stream.h"
#include "base/error.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;

// The value of the first line "key : value" of a /proc file, or "" without such a line.
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

// What the system can still give without swapping; 0 = unknown.
int64_t available_bytes() {
  const std::string text = proc_value("/proc/meminfo", "MemAvailable");
  return text.empty() ? 0 : std::strtoll(text.c_str(), nullptr, 10) * 1024;
}

DeviceInfo info() {
  const std::string model = proc_value("/proc/cpuinfo", "model name");
  DeviceInfo out;
  out.num_threads = num_threads();
  out.memory_bytes = available_bytes();
  out.name = fmt::format("cpu: {}, {} threads, {}", model.empty() ? "unknown model" : model, out.num_threads,
                         isa_name(best_isa()));
  return out;
}

void* alloc(int64_t num_bytes) {
  CHECK(num_bytes > 0, num_bytes);
  const int64_t available = available_bytes();
  // The system would promise more than it has and kill the process on the page that is one too many.
  if (available > 0 && num_bytes > available)
    fail(ErrorCode::kOutOfMemory,
         "a block of {} was asked for, {} of memory are available; use a smaller model, fewer "
         "tokens per micro-batch or recompute",
         format_bytes(num_bytes), format_bytes(available));
  void* base =
      ::mmap(nullptr, static_cast<size_t>(num_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED)
    fail(ErrorCode::kOutOfMemory, "a block of {} was asked for, the system refused: {}", format_bytes(num_bytes),
         std::strerror(errno));
  if (num_bytes >= kHugePageBytes)
    ::madvise(base, static_cast<size_t>(num_bytes), MADV_HUGEPAGE);  // a wish, not a need
  return base;
}

void free_block(void* base, int64_t num_bytes) { ::munmap(base, static_cast<size_t>(num_bytes)); }

void copy_to_device(Stream*, View to, const void* from) {
  CHECK(to.contiguous(), to.to_string());
  if (to.size() > 0) std::memcpy(to.raw(), from, static_cast<size_t>(to.num_bytes()));  // else there may be no memory
}

void copy_to_host(Stream*, void* to, View from) {
  CHECK(from.contiguous(), from.to_string());
  if (from.size() > 0) std::memcpy(to, from.raw(), static_cast<size_t>(from.num_bytes()));
}

Peak peak(DType act) {
  const bool bf16 = act == DType::kBF16;
  const double flops = peak_flops(bf16);
  return {flops, fmt::format("{:.2f} TFLOP/s ({}, measured)", flops / 1e12, bf16 ? "bf16" : "f32")};
}

}  // namespace

DeviceTable cpu_device() {
  DeviceTable table;
  table.info = info, table.alloc = alloc, table.free = free_block;
  add_streams(table);
  table.copy_to_device = copy_to_device, table.copy_to_host = copy_to_host, table.peak = peak;
  return table;
}

}  // namespace temper::backend
