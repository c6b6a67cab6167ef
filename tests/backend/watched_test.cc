#include "backend/watched.h"

#include <gtest/gtest.h>

#include <array>

#include "backend/registry.h"

namespace temper::backend {
namespace {

struct Recorder : OpWatcher {
  struct Seen {
    OpId id;
    std::vector<std::string> names;
    std::vector<Role> roles;
    std::vector<float> values;  // of the first operand
  };
  void see(const OpCall& call) {
    Seen& one = seen.emplace_back();
    one.id = call.id;
    for (const Operand& operand : call.operands) {
      one.names.emplace_back(operand.name);
      one.roles.push_back(operand.role);
    }
    const View& first = call.operands[0].view;
    if (first.dtype == DType::kF32) one.values.assign(first.data<float>(), first.data<float>() + first.size());
  }
  void before(const OpCall& call) override { see(call); }
  void after(const OpCall& call) override { see(call); }
  std::vector<Seen> seen;
};

TEST(WatchedBackend, ShowsOperandsBeforeAndAfterEachOp) {
  Recorder recorder;
  WatchedBackend watched(cpu_reference(), nullptr, recorder);
  std::array<float, 2> x{1, 2}, y{10, 20};
  watched.backend().ops.add(watched.stream(), View(y.data(), DType::kF32, {2}), View(x.data(), DType::kF32, {2}), 2.0);
  ASSERT_EQ(recorder.seen.size(), 2u);
  EXPECT_EQ(recorder.seen[0].id, OpId::add);
  EXPECT_EQ(recorder.seen[0].names, (std::vector<std::string>{"y", "x"}));
  EXPECT_EQ(recorder.seen[0].roles, (std::vector<Role>{Role::kInOut, Role::kIn}));
  EXPECT_EQ(recorder.seen[0].values, (std::vector<float>{10, 20}));
  EXPECT_EQ(recorder.seen[1].values, (std::vector<float>{12, 24}));
}

TEST(WatchedBackend, LeavesOutOperandsThatAreNotThereAndShowsThoseOfRanges) {
  std::array<float, 4> z{1, 2, 3, 4}, v{};
  std::array<int32_t, 1> row{0}, previous{-1};
  const View z_TZ(z.data(), DType::kF32, {2, 2}), v_CH(v.data(), DType::kF32, {1, 2});
  const CompressRanges ranges{View(row.data(), DType::kI32, {1}), View(previous.data(), DType::kI32, {1}), 2};
  const auto list = operands<OpId::compress_forward>(Out(v_CH), In(z_TZ), In(z_TZ), In(View{}), ranges);
  std::vector<std::string> names;
  for (const Operand& operand : list) names.emplace_back(operand.name);
  EXPECT_EQ(names, (std::vector<std::string>{"v_CH", "z_TZ", "g_TZ", "row_C", "prev_row_C"}));
}

}  // namespace
}  // namespace temper::backend
