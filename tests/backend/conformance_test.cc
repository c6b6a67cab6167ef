// Every op of every backend against the scalar reference in f64, by the tolerances of tolerance.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "backend/op_case.h"
#include "backend/tolerance.h"
#include "base/thread.h"

namespace temper::backend::test {
namespace {

struct Tested {
  const Backend& (*backend)();
  Precision precision;
};

// A new backend is one line a precision here.
const Tested kTested[] = {
    {cpu_reference, Precision::kFp32},
    {cpu_reference, Precision::kBf16},
    {cpu, Precision::kFp32},
    {cpu, Precision::kBf16},
};

const std::vector<OpCase>& all_cases() {
  static const std::vector<OpCase> cases = [] {
    std::vector<OpCase> out;
    add_movement_cases(out);
    add_product_cases(out);
    add_row_cases(out);
    add_hyper_cases(out);
    add_attention_cases(out);
    add_moe_cases(out);
    add_optimizer_cases(out);
    return out;
  }();
  return cases;
}

void compare(const OpCase& op_case, const Operand& operand, Precision precision, const std::vector<double>& got,
             const std::vector<double>& want) {
  const DType dtype = dtype_of(operand.kind, precision);
  const bool integral = dtype == DType::kI32 || dtype == DType::kI64;
  const Tolerance tol = integral ? Tolerance{0, 0} : tolerance(op_case.op, precision, dtype);
  size_t count = want.size();
  if (operand.compared_rows >= 0)
    count = static_cast<size_t>(operand.compared_rows * operand.memory.size() / operand.memory[0]);
  double squares = 0;
  for (size_t i = 0; i < count; ++i) squares += want[i] * want[i];
  const double rms = count ? std::sqrt(squares / static_cast<double>(count)) : 0;
  size_t num_wrong = 0;
  for (size_t i = 0; i < count; ++i) {
    const double limit = tol.relative * std::abs(want[i]) + tol.of_rms * rms;
    if (std::abs(got[i] - want[i]) <= limit) continue;  // a NaN fails
    if (num_wrong++ < 3)
      ADD_FAILURE() << operand.name << " element " << i << ": got " << got[i] << ", want " << want[i]
                    << ", allowed difference " << limit << " (rms of the operand " << rms << ")";
  }
  EXPECT_EQ(num_wrong, 0u) << "of " << count << " elements of " << operand.name;
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](double x, double y) { return std::bit_cast<uint64_t>(x) == std::bit_cast<uint64_t>(y); });
}

// Three threads, on any machine: uneven partitions are part of what is tested.
class Conformance : public testing::TestWithParam<std::tuple<Tested, int>> {
 protected:
  static void SetUpTestSuite() {
    threads_before_ = num_threads();
    set_num_threads(3);
  }
  static void TearDownTestSuite() { set_num_threads(threads_before_); }
  static inline int threads_before_ = 0;
};

TEST_P(Conformance, AgreesWithTheReference) {
  const auto [tested, op] = GetParam();
  int num_cases = 0;
  for (const OpCase& op_case : all_cases()) {
    if (op_case.op != static_cast<OpId>(op)) continue;
    SCOPED_TRACE(op_case.label);
    ++num_cases;
    const auto want = run_case(op_case, cpu_reference(), Precision::kFp64);
    const auto got = run_case(op_case, tested.backend(), tested.precision);
    const auto again = run_case(op_case, tested.backend(), tested.precision);
    for (size_t i = 0; i < want.size(); ++i) {
      const Operand& operand = op_case.operands[i];
      if (operand.role != Role::kOut && operand.role != Role::kInOut) continue;
      compare(op_case, operand, tested.precision, got[i], want[i]);
      EXPECT_TRUE(same_bits(got[i], again[i])) << operand.name << ": equal operands must give equal bits";
    }
  }
  EXPECT_GT(num_cases, 0) << "no case exercises this op: add one in a cases_*.cc file";
}

// Those that cut tokens by the number of threads; why stands in docs/numerics.md, "Determinism".
bool depends_on_threads(OpId op) { return op == OpId::attention_backward || op == OpId::indexer_loss; }

TEST_P(Conformance, GivesTheSameBitsOnOneThreadAndOnThree) {
  const auto [tested, op] = GetParam();
  if (depends_on_threads(static_cast<OpId>(op))) return;
  for (const OpCase& op_case : all_cases()) {
    if (op_case.op != static_cast<OpId>(op) || tested.backend().name != "cpu") continue;
    SCOPED_TRACE(op_case.label);
    const auto three = run_case(op_case, tested.backend(), tested.precision);
    set_num_threads(1);
    const auto one = run_case(op_case, tested.backend(), tested.precision);
    set_num_threads(3);
    for (size_t i = 0; i < one.size(); ++i) {
      const Operand& operand = op_case.operands[i];
      if (operand.role == Role::kScratch || operand.compared_rows >= 0) continue;
      EXPECT_TRUE(same_bits(one[i], three[i])) << operand.name;
    }
  }
}

std::string test_name(const testing::TestParamInfo<std::tuple<Tested, int>>& info) {
  const auto [tested, op] = info.param;
  return tested.backend().name + (tested.precision == Precision::kBf16 ? "_bf16_" : "_f32_") +
         std::string(kOpNames[static_cast<size_t>(op)]);
}

INSTANTIATE_TEST_SUITE_P(Ops, Conformance,
                         testing::Combine(testing::ValuesIn(kTested),
                                          testing::Range(0, static_cast<int>(OpId::kCount))),
                         test_name);

}  // namespace
}  // namespace temper::backend::test
