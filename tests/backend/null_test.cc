// The null backend counts and touches nothing.
#include <gtest/gtest.h>

#include "backend/null_counters.h"
#include "backend/registry.h"

namespace temper::backend {
namespace {

TEST(NullBackend, CountsCallsFlopsAndBytesByOp) {
  const Backend& null = null_backend();
  reset_null_counters();
  void* base = null.device.alloc(1 << 20);
  const View c(base, DType::kF32, {3, 5}), a(base, DType::kBF16, {3, 7}, 100), b(base, DType::kBF16, {7, 5}, 300);
  null.ops.matmul(nullptr, c, a, b, 1);
  null.ops.matmul(nullptr, c, a, b, 0);
  null.ops.fill(nullptr, c, 0);
  const OpCount& matmul = null_counters()[OpId::matmul];
  EXPECT_EQ(matmul.calls, 2);
  EXPECT_EQ(matmul.flops, 2 * 2.0 * 3 * 5 * 7);
  EXPECT_EQ(matmul.bytes, 2 * (2 * 60.0 + 42 + 70));  // c is read and written
  EXPECT_EQ(null_counters()[OpId::fill].bytes, 60);
  EXPECT_EQ(null_counters().total().calls, 3);
  null.device.free(base, 1 << 20);
  reset_null_counters();
  EXPECT_EQ(null_counters().total().calls, 0);
}

TEST(NullBackend, CountsMemoryAndItsPeak) {
  const DeviceTable& device = null_backend().device;
  reset_null_counters();
  const int64_t start = null_counters().allocated_bytes;
  void* big = device.alloc(int64_t{1} << 42);  // four TiB are no trouble
  void* small = device.alloc(100);
  EXPECT_NE(big, nullptr);
  EXPECT_NE(big, small);
  device.free(big, int64_t{1} << 42);
  EXPECT_EQ(null_counters().allocated_bytes, start + 100);
  EXPECT_EQ(null_counters().peak_allocated_bytes, start + (int64_t{1} << 42) + 100);
  device.free(small, 100);
}

TEST(NullBackend, ReadsBackZeros) {
  const DeviceTable& device = null_backend().device;
  void* base = device.alloc(64);
  float values[4] = {1, 2, 3, 4};
  const View view(base, DType::kF32, {4});
  device.copy_to_device(nullptr, view, values);
  device.copy_to_host(nullptr, values, view);
  for (const float value : values) EXPECT_EQ(value, 0);
  device.free(base, 64);
}

// So that an op that dereferences a planned operand cannot pass for one that counts it.
TEST(NullBackendDeathTest, ItsMemoryCannotBeRead) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  void* base = null_backend().device.alloc(64);
  EXPECT_DEATH(
      {
        volatile char c = *static_cast<volatile char*>(base);
        (void)c;
      },
      "");
}

}  // namespace
}  // namespace temper::backend
