#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/checks.h"
#include "comm/world.h"

namespace temper::comm {
namespace {

class ThreadsTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(ThreadsTest, EveryFunctionAnswersAsDefined) { run_ranks(GetParam(), testing::check_all); }

TEST_P(ThreadsTest, EveryFunctionAnswersAsDefinedOnAStreamOfItsOwn) { run_ranks(GetParam(), testing::check_beside); }

INSTANTIATE_TEST_SUITE_P(Ranks, ThreadsTest, ::testing::Values(1, 2, 3, 4, 8));

TEST(SelfTest, EveryFunctionAnswersAsDefined) {
  testing::check_all(*self_comm());
  testing::check_beside(*self_comm());
}

}  // namespace
}  // namespace temper::comm
