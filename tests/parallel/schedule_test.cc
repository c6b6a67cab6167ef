#include "parallel/schedule.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace temper::parallel {
namespace {

TEST(StepScheduleTest, OneRankIsForwardLossBackwardPerMicroBatchThenReduce) {
  const std::vector<Instruction> want = {{Action::kForward, 0}, {Action::kLoss, 0}, {Action::kBackward, 0},
                                         {Action::kForward, 1}, {Action::kLoss, 1}, {Action::kBackward, 1},
                                         {Action::kReduce}};
  EXPECT_EQ(one_rank_step(2), want);
}

struct Recorder : Executor {
  void execute(const Instruction& instruction) override {
    if (instruction == stop_at) fail(ErrorCode::kDevice, "stopped");
    seen.push_back(describe(instruction));
  }
  std::vector<std::string> seen;
  Instruction stop_at{Action::kUpdate, 99};
};

TEST(StepScheduleTest, RunKeepsOrder) {
  Recorder recorder;
  size_t position = 99;
  const auto list = one_rank_step(1);
  run(list, recorder, position);
  EXPECT_EQ(recorder.seen, (std::vector<std::string>{"forward of micro-batch 0", "loss of micro-batch 0",
                                                     "backward of micro-batch 0", "gradient reduction"}));
  EXPECT_EQ(position, list.size());
}

TEST(StepScheduleTest, PositionNamesTheInstructionThatThrew) {
  Recorder recorder;
  recorder.stop_at = {Action::kBackward, 1};
  size_t position = 0;
  const auto list = one_rank_step(3);
  EXPECT_THROW(run(list, recorder, position), Error);
  EXPECT_EQ(list[position], recorder.stop_at);
}

}  // namespace
}  // namespace temper::parallel
