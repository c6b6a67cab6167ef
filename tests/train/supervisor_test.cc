#include "train/supervisor.h"

#include <gtest/gtest.h>

#include <csignal>

#include "base/error.h"

namespace temper::train {
namespace {

TEST(SupervisorTest, FirstSignalAsksToStop) {
  const StopRequest stop;
  EXPECT_FALSE(stop.requested());
  std::raise(SIGINT);
  EXPECT_TRUE(stop.requested());
  EXPECT_EQ(std::signal(SIGINT, SIG_DFL), SIG_DFL);  // a second one would end the process
}

TEST(SupervisorTest, ARequestDoesNotOutliveItsRun) {
  {
    const StopRequest stop;
    std::raise(SIGTERM);
  }
  EXPECT_FALSE(StopRequest().requested());
}

TEST(SupervisorTest, ErrorsGetTheirPlaceAndKeepTheirCode) {
  try {
    with_place(
        12, [] { return "update"; }, [] { fail(ErrorCode::kDevice, "the card is gone"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    EXPECT_STREQ(error.what(), "step 12, update: the card is gone");
  }
}

}  // namespace
}  // namespace temper::train
