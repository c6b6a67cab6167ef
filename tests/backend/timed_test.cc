#include "backend/timed.h"

#include <gtest/gtest.h>

#include <array>

#include "backend/registry.h"

namespace temper::backend {
namespace {

TEST(TimedBackend, PassesCallsOnAndCountsThem) {
  TimedBackend timed(cpu_reference());
  const OpTable& ops = timed.backend().ops;
  std::array<float, 6> x{1, 2, 3, 4, 5, 6}, y{};
  const View x_view(x.data(), DType::kF32, {6}), y_view(y.data(), DType::kF32, {6});
  ops.fill(timed.stream(), y_view, 1.0);
  ops.add(timed.stream(), y_view, x_view, 2.0);
  ops.add(timed.stream(), y_view, x_view, 0.0);
  timed.backend().device.stream_sync(timed.stream());

  EXPECT_EQ(y, (std::array<float, 6>{3, 5, 7, 9, 11, 13}));
  EXPECT_EQ(timed.time(OpId::fill).num_calls, 1);
  EXPECT_EQ(timed.time(OpId::add).num_calls, 2);
  EXPECT_EQ(timed.time(OpId::add).flops, 2 * 2.0 * 6);
  EXPECT_GE(timed.time(OpId::add).seconds, 0);
  EXPECT_EQ(timed.time(OpId::copy).num_calls, 0);

  timed.reset();
  EXPECT_EQ(timed.time(OpId::add).num_calls, 0);
}

TEST(TimedBackend, CopiesThroughTheWrappedDevice) {
  TimedBackend timed(cpu_reference());
  std::array<float, 2> from{7, 8}, memory{}, to{};
  const View view(memory.data(), DType::kF32, {2});
  timed.backend().device.copy_to_device(timed.stream(), view, from.data());
  timed.backend().device.copy_to_host(timed.stream(), to.data(), view);
  EXPECT_EQ(to, from);
}

TEST(TimedBackend, KeepsAnAbsentOpAbsent) {
  Backend partial = cpu_reference();
  partial.ops.matmul = nullptr;
  TimedBackend timed(partial);
  EXPECT_EQ(timed.backend().ops.matmul, nullptr);
  EXPECT_NE(timed.backend().ops.add, nullptr);
}

}  // namespace
}  // namespace temper::backend
