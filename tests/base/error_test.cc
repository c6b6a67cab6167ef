#include "base/error.h"

#include <gtest/gtest.h>

#include "base/check.h"

namespace temper {
namespace {

TEST(Error, CarriesItsCodeAndMessage) {
  try {
    fail(ErrorCode::kBudget, "asked {} of {}", 3, "two");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBudget);
    EXPECT_STREQ(error.what(), "asked 3 of two");
  }
}

TEST(Error, ExitCodesTellTheUsersFaultFromTheMachines) {
  EXPECT_EQ(exit_code(ErrorCode::kInvalidArgument), 2);
  EXPECT_EQ(exit_code(ErrorCode::kCorrupt), 2);
  EXPECT_EQ(exit_code(ErrorCode::kDevice), 3);
  EXPECT_EQ(exit_code(ErrorCode::kPeer), 3);
}

TEST(CheckDeathTest, PrintsTheConditionAndItsValues) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const int rows = 3, columns = 4;
  CHECK(rows < columns, rows);
  EXPECT_DEATH(CHECK(rows == columns, rows, columns), "CHECK failed: rows == columns .*values: 3 4");
}

}  // namespace
}  // namespace temper
