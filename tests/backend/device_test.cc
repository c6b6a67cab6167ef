// The CPU as a device, and the tables of the built-in backends.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/registry.h"
#include "base/error.h"

namespace temper::backend {
namespace {

TEST(CpuDevice, MemoryIsAlignedZeroAndItsOwn) {
  const DeviceTable& device = cpu().device;
  for (const int64_t num_bytes : {int64_t{1}, int64_t{100}, int64_t{5} << 20}) {
    auto* base = static_cast<unsigned char*>(device.alloc(num_bytes));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(base) % 64, 0u);
    EXPECT_TRUE(std::all_of(base, base + num_bytes, [](unsigned char b) { return b == 0; }));
    std::memset(base, 7, static_cast<size_t>(num_bytes));
    device.free(base, num_bytes);
  }
}

TEST(CpuDevice, RefusesMoreThanThereIsWithTheNumbers) {
  try {
    cpu().device.alloc(int64_t{1} << 46);
    FAIL() << "64 TiB were granted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(error.what()).find("64.00 TiB"), std::string::npos) << error.what();
  }
}

TEST(CpuDevice, CopiesThereAndBack) {
  const DeviceTable& device = cpu().device;
  Stream* stream = device.stream_create();
  void* base = device.alloc(4096);
  const View view(base, DType::kF32, {3, 4}, 5);
  std::vector<float> sent(12), got(12);
  for (size_t i = 0; i < 12; ++i) sent[i] = static_cast<float>(i);
  device.copy_to_device(stream, view, sent.data());
  device.copy_to_host(stream, got.data(), view);
  EXPECT_EQ(sent, got);
  device.copy_to_host(stream, got.data(), view.rows(1, 2));
  EXPECT_EQ(got[0], 4);
  device.free(base, 4096);
  device.stream_destroy(stream);
}

TEST(CpuDevice, SaysWhatItIs) {
  const DeviceInfo info = cpu().device.info();
  EXPECT_EQ(info.name.rfind("cpu: ", 0), 0u) << info.name;
  EXPECT_GT(info.memory_bytes, 0);
  EXPECT_GE(info.num_threads, 1);
}

TEST(CpuDevice, ThePeakIsMeasuredOncePerDtype) {
  const DeviceTable& device = cpu().device;
  const double f32 = device.peak(DType::kF32).flops_per_second, bf16 = device.peak(DType::kBF16).flops_per_second;
  EXPECT_GT(f32, 0);
  EXPECT_EQ(device.peak(DType::kF32).flops_per_second, f32);
  EXPECT_EQ(device.peak(DType::kBF16).flops_per_second, bf16);
}

TEST(Backends, EveryOpIsThere) {
  for (const Backend* backend : {&cpu(), &cpu_reference(), &null_backend()}) {
    SCOPED_TRACE(backend->name);
#define TEMPER_OP(name, kind, flops, params) EXPECT_NE(backend->ops.name, nullptr) << #name;
#include "backend/ops.def"
#undef TEMPER_OP
  }
}

}  // namespace
}  // namespace temper::backend
