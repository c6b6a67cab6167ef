#include "parallel/schedule_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace temper::parallel {
namespace {

using testing::HasSubstr;

TEST(ScheduleCheckTest, EveryScheduleRunsForAnyNumberOfMicroBatches) {
  for (int64_t stages = 1; stages <= 9; ++stages) {
    for (int64_t m = 1; m <= 20; ++m) {
      for (const Schedule schedule : {Schedule::kOneFOneB, Schedule::kZeroBubble})
        EXPECT_EQ(check_schedule(pipeline_lists(schedule, stages, 1, m)).fault, "")
            << to_string(schedule) << " of " << stages << " stages, " << m << " micro-batches";
      for (int64_t chunks = 2; chunks <= 4 && stages > 1; ++chunks)
        EXPECT_EQ(check_schedule(pipeline_lists(Schedule::kInterleaved, stages, chunks, m)).fault, "")
            << stages << " stages of " << chunks << " chunks, " << m << " micro-batches";
    }
  }
}

TEST(ScheduleCheckTest, ManyStagesAndMicroBatchesAreChecked) {
  // 1,024 ranks: 16 replicas of 64 stages, or 64 of 16, whose lists are the same.
  EXPECT_EQ(check_schedule(pipeline_lists(Schedule::kInterleaved, 64, 4, 256)).fault, "");
  EXPECT_EQ(check_schedule(pipeline_lists(Schedule::kZeroBubble, 16, 1, 512)).fault, "");
}

// All forwards, then all backward passes.
PipelineLists all_forward_then_backward(int64_t num_stages, int64_t num_micro_batches) {
  PipelineLists lists;
  for (int64_t s = 0; s < num_stages; ++s) {
    std::vector<Instruction> list;
    for (const Action action : {Action::kForward, Action::kBackward})
      for (int64_t i = 0; i < num_micro_batches; ++i)
        for (const Instruction& instruction : with_messages({s, num_stages}, {action, i})) list.push_back(instruction);
    list.push_back({Action::kReduce});
    lists.stage_lists.push_back(list);
  }
  return lists;
}

TEST(ScheduleCheckTest, SendsThatWaitStopOneFOneBButNotOneMicroBatch) {
  const Findings ordered = check_schedule(all_forward_then_backward(3, 1));
  EXPECT_EQ(ordered.fault, "");
  EXPECT_EQ(ordered.rendezvous_fault, "");
  const Findings alternating = check_schedule(pipeline_lists(Schedule::kOneFOneB, 2, 1, 2));
  EXPECT_EQ(alternating.fault, "");
  EXPECT_EQ(alternating.rendezvous_fault,
            "stage 0, instruction 3 (sending the output of micro-batch 1) waits for stage 1; stage 1, instruction 4 "
            "(sending the input's gradient of micro-batch 0) waits for stage 0");
}

TEST(ScheduleCheckTest, StagesThatWaitForEachOtherAreNamed) {
  // Stage 0 wants the gradient of micro-batch 0 before it sends 1; with two more stages, stage 1 wants both forwards
  // first.
  PipelineLists lists = pipeline_lists(Schedule::kOneFOneB, 2, 1, 2);
  lists.stage_lists[0] = {{Action::kForward, 0},      {Action::kSendForward, 0}, {Action::kRecvBackward, 0},
                          {Action::kBackward, 0},     {Action::kForward, 1},     {Action::kSendForward, 1},
                          {Action::kRecvBackward, 1}, {Action::kBackward, 1},    {Action::kReduce}};
  EXPECT_EQ(check_schedule(lists).fault, "");
  const auto first = lists.stage_lists[0];
  lists = pipeline_lists(Schedule::kOneFOneB, 3, 1, 2);
  lists.stage_lists[0] = first;
  EXPECT_EQ(check_schedule(lists).fault,
            "stage 0, instruction 2 (receiving the output's gradient of micro-batch 0) waits for stage 1; stage 1, "
            "instruction 3 (receiving the input of micro-batch 1) waits for stage 0; stage 2, instruction 5 (receiving "
            "the input of micro-batch 1) waits for stage 1");
}

// The fault after one change to the list of stage 1 of three.
template <class Change>
std::string fault_after(Schedule schedule, const Change& change) {
  PipelineLists lists = pipeline_lists(schedule, 3, schedule == Schedule::kInterleaved ? 2 : 1, 4);
  change(lists.stage_lists[1]);
  return check_schedule(lists).fault;
}

size_t find(const std::vector<Instruction>& list, const Instruction& wanted) {
  return std::ranges::find(list, wanted) - list.begin();
}

TEST(ScheduleCheckTest, MessagesMustStandBesideTheirWork) {
  EXPECT_EQ(fault_after(Schedule::kOneFOneB, [](auto& list) { list.erase(list.begin()); }),
            "stage 1, instruction 0 must be receiving the input of micro-batch 0");
  EXPECT_EQ(fault_after(Schedule::kOneFOneB, [](auto& list) { std::swap(list[2], list[3]); }),
            "stage 1, instruction 2 must be sending the output of micro-batch 0");
  EXPECT_EQ(fault_after(Schedule::kOneFOneB, [](auto& list) { list.insert(list.begin(), list[2]); }),
            "stage 1, instruction 0 (sending the output of micro-batch 0): it belongs to no forward or backward");
}

TEST(ScheduleCheckTest, EveryMicroBatchPassesOnceInAscendingOrder) {
  EXPECT_THAT(fault_after(Schedule::kOneFOneB,
                          [](auto& list) {
                            for (Instruction& i : list)
                              if (i.micro_batch >= 2) i.micro_batch = 5 - i.micro_batch;
                          }),
              HasSubstr("the next forward is that of micro-batch 2"));
  EXPECT_THAT(
      fault_after(
          Schedule::kZeroBubble,
          [](auto& list) {
            std::swap(list[find(list, {Action::kBackwardWeight, 1})], list[find(list, {Action::kBackwardWeight, 2})]);
          }),
      HasSubstr("the next backward to the weights is that of micro-batch 1"));
  EXPECT_EQ(fault_after(Schedule::kZeroBubble,
                        [](auto& list) {
                          list.erase(list.begin() + find(list, {Action::kBackwardWeight, 3}));
                        }),
            "stage 1: 3 of 4 micro-batches come to their end in a chunk");
  EXPECT_THAT(fault_after(Schedule::kZeroBubble,
                          [](auto& list) {
                            list.insert(list.begin(), Instruction{Action::kBackwardWeight, 0});
                          }),
              HasSubstr("a backward to the weights has no micro-batch to take"));
  EXPECT_THAT(fault_after(Schedule::kInterleaved, [](auto& list) { list[1].chunk = 2; }),
              HasSubstr("there are 2 chunks"));
}

TEST(ScheduleCheckTest, NothingStandsBetweenTheLastPartsForwardAndBackward) {
  // Stage 1 of two: F0 L0 and F1 L1, then B0 and B1.
  EXPECT_THAT(check_schedule(all_forward_then_backward(2, 2)).fault,
              HasSubstr("the backward of the last part must come directly after its loss"));
}

TEST(ScheduleCheckTest, TheReductionComesLastAndOnce) {
  const std::string why = "stage 1: the last instruction must be the gradient reduction";
  EXPECT_EQ(fault_after(Schedule::kOneFOneB, [](auto& list) { list.back() = {Action::kUpdate}; }), why);
  EXPECT_THAT(fault_after(Schedule::kOneFOneB, [](auto& list) { list.insert(list.begin(), {Action::kReduce}); }),
              HasSubstr("it belongs to no forward or backward"));
}

TEST(ScheduleCheckTest, MessagesOfAChannelComeInTheOrderInWhichTheyWereSent) {
  // Stage 1 takes the chunks in the other order, so that the message of chunk 0 comes where it wants that of chunk 1.
  PipelineLists lists = all_forward_then_backward(2, 1);
  lists.num_chunks = 2;
  const auto with_chunks = [](int64_t stage, std::initializer_list<Instruction> work) {
    std::vector<Instruction> list;
    for (const Instruction& w : work)
      for (const Instruction& i : with_messages({stage, 2, 2}, w)) list.push_back(i);
    list.push_back({Action::kReduce});
    return list;
  };
  lists.stage_lists[0] = with_chunks(
      0, {{Action::kForward, 0, 0}, {Action::kForward, 0, 1}, {Action::kBackward, 0, 1}, {Action::kBackward, 0, 0}});
  lists.stage_lists[1] = with_chunks(
      1, {{Action::kForward, 0, 1}, {Action::kBackward, 0, 1}, {Action::kForward, 0, 0}, {Action::kBackward, 0, 0}});
  EXPECT_EQ(check_schedule(lists).fault,
            "stage 1, instruction 0 (receiving the input of micro-batch 0, chunk 1): the message that comes next is of "
            "micro-batch 0, part 1");
}

}  // namespace
}  // namespace temper::parallel
