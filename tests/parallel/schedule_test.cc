#include "parallel/schedule.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace temper::parallel {
namespace {

TEST(StepScheduleTest, OneRankIsForwardLossBackwardPerMicroBatchThenReduce) {
  const std::vector<Instruction> want = {{Action::kForward, 0}, {Action::kLoss, 0}, {Action::kBackward, 0},
                                         {Action::kForward, 1}, {Action::kLoss, 1}, {Action::kBackward, 1},
                                         {Action::kReduce}};
  EXPECT_EQ(one_rank_step(2), want);
}

TEST(StepScheduleTest, EveryScheduleOfOneStageIsThatOfOneRank) {
  for (const Schedule schedule : {Schedule::kOneFOneB, Schedule::kZeroBubble})
    EXPECT_EQ(pipeline_step(schedule, {}, 3), one_rank_step(3));
}

// "F0 L0 B0 R", the messages left out.
std::string work_of(const std::vector<Instruction>& list) {
  const std::map<Action, char> letters = {{Action::kForward, 'F'},        {Action::kLoss, 'L'},
                                          {Action::kBackward, 'B'},       {Action::kBackwardInput, 'B'},
                                          {Action::kBackwardWeight, 'W'}, {Action::kReduce, 'R'}};
  std::string words;
  for (const Instruction& i : list) {
    if (!letters.contains(i.action)) continue;
    words += fmt::format("{}{}{}{}", words.empty() ? "" : " ", letters.at(i.action),
                         i.micro_batch < 0 ? "" : std::to_string(i.micro_batch), i.chunk == 1 ? "'" : "");
  }
  return words;
}

TEST(StepScheduleTest, OneFOneBWarmsUpAndAlternates) {
  EXPECT_EQ(work_of(pipeline_step(Schedule::kOneFOneB, {0, 3}, 4)), "F0 F1 F2 B0 F3 B1 B2 B3 R");
  EXPECT_EQ(work_of(pipeline_step(Schedule::kOneFOneB, {1, 3}, 4)), "F0 F1 B0 F2 B1 F3 B2 B3 R");
  EXPECT_EQ(work_of(pipeline_step(Schedule::kOneFOneB, {2, 3}, 4)), "F0 L0 B0 F1 L1 B1 F2 L2 B2 F3 L3 B3 R");
}

TEST(StepScheduleTest, InterleavedTakesGroupsThroughAllChunks) {
  EXPECT_EQ(work_of(pipeline_step(Schedule::kInterleaved, {0, 2, 2}, 4)),
            "F0 F1 F0' F1' F2 B0' F3 B1' F2' B0 F3' B1 B2' B3' B2 B3 R");
  EXPECT_EQ(work_of(pipeline_step(Schedule::kInterleaved, {1, 2, 2}, 4)),
            "F0 F1 F0' L0' B0' F1' L1' B1' F2 B0 F3 B1 F2' L2' B2' F3' L3' B3' B2 B3 R");
  // 5 micro-batches of 2 stages: a group of 3, one of 2.
  EXPECT_EQ(work_of(pipeline_step(Schedule::kInterleaved, {1, 2, 2}, 5)),
            "F0 F1 F2 F0' L0' B0' F1' L1' B1' F2' L2' B2' F3 B0 F4 B1 B2 F3' L3' B3' F4' L4' B4' B3 B4 R");
}

TEST(StepScheduleTest, ZeroBubblePutsWeightsBehindByTheStagesNumber) {
  for (int64_t m : {1, 4, 9})
    EXPECT_EQ(pipeline_step(Schedule::kZeroBubble, {0, 3}, m), pipeline_step(Schedule::kOneFOneB, {0, 3}, m));
  EXPECT_EQ(work_of(pipeline_step(Schedule::kZeroBubble, {0, 3}, 4)), "F0 F1 F2 B0 F3 B1 B2 B3 R");
  EXPECT_EQ(work_of(pipeline_step(Schedule::kZeroBubble, {1, 3}, 4)), "F0 F1 B0 F2 B1 W0 F3 B2 W1 B3 W2 W3 R");
  EXPECT_EQ(work_of(pipeline_step(Schedule::kZeroBubble, {2, 3}, 4)),
            "F0 L0 B0 F1 L1 B1 F2 L2 B2 W0 F3 L3 B3 W1 W2 W3 R");
}

TEST(StepScheduleTest, MessagesStandBesideTheirWork) {
  const std::vector<Instruction> want = {{Action::kRecvForward, 0},  {Action::kForward, 0},  {Action::kSendForward, 0},
                                         {Action::kRecvBackward, 0}, {Action::kBackward, 0}, {Action::kSendBackward, 0},
                                         {Action::kReduce}};
  auto list = pipeline_step(Schedule::kOneFOneB, {1, 3}, 1);
  EXPECT_EQ(list, want);
  // The first stage's second chunk has a part before it: the last stage's first chunk.
  const std::vector<Instruction> second = {
      {Action::kRecvForward, 2, 1}, {Action::kForward, 2, 1}, {Action::kSendForward, 2, 1}};
  EXPECT_EQ(with_messages({0, 3, 2}, {Action::kForward, 2, 1}), second);
  const std::vector<Instruction> last = {{Action::kRecvForward, 2, 1}, {Action::kForward, 2, 1}, {Action::kLoss, 2, 1}};
  EXPECT_EQ(with_messages({2, 3, 2}, {Action::kForward, 2, 1}), last);
}

TEST(StepScheduleTest, ChunksThatTheScheduleDoesNotHaveAreRefused) {
  EXPECT_THROW(pipeline_step(Schedule::kOneFOneB, {0, 2, 2}, 4), Error);
  EXPECT_THROW(pipeline_step(Schedule::kZeroBubble, {0, 2, 2}, 4), Error);
  EXPECT_THROW(pipeline_step(Schedule::kInterleaved, {0, 2, 1}, 4), Error);
  EXPECT_THROW(pipeline_step(Schedule::kInterleaved, {0, 1, 2}, 4), Error);
}

TEST(StepScheduleTest, InstructionsAreSaidInWords) {
  EXPECT_EQ(describe({Action::kBackwardInput, 3, 1}), "backward to the inputs of micro-batch 3, chunk 1");
  EXPECT_EQ(describe({Action::kRecvBackward, 3}), "receiving the output's gradient of micro-batch 3");
  EXPECT_EQ(describe({Action::kUpdate}), "update");
}

// From the first to the last instruction of a pass nobody else has its slot.
void expect_no_slot_is_given_twice(const std::vector<Instruction>& list) {
  const Slots slots = plan_slots(list);
  ASSERT_EQ(slots.slot_I.size(), list.size());
  std::map<int64_t, std::pair<int64_t, int64_t>> owner;  // slot: micro-batch and chunk
  size_t most = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::pair pass{list[i].micro_batch, list[i].chunk};
    if (pass.first < 0) {
      EXPECT_EQ(slots.slot_I[i], -1);
      continue;
    }
    EXPECT_EQ(owner.emplace(slots.slot_I[i], pass).first->second, pass) << describe(list[i]);
    most = std::max(most, owner.size());
    const bool is_last = std::none_of(list.begin() + i + 1, list.end(), [&](const Instruction& later) {
      return later.micro_batch == pass.first && later.chunk == pass.second;
    });
    if (is_last) owner.erase(slots.slot_I[i]);
  }
  EXPECT_EQ(static_cast<int64_t>(most), slots.num_slots);
}

TEST(SlotTest, PassesAliveHaveSlotsOfTheirOwn) {
  for (int64_t m : {1, 3, 4, 9}) {
    for (int64_t s = 0; s < 4; ++s) {
      expect_no_slot_is_given_twice(pipeline_step(Schedule::kOneFOneB, {s, 4}, m));
      expect_no_slot_is_given_twice(pipeline_step(Schedule::kZeroBubble, {s, 4}, m));
      expect_no_slot_is_given_twice(pipeline_step(Schedule::kInterleaved, {s, 4, 3}, m));
    }
  }
}

TEST(SlotTest, NumbersAreThoseOfTheSchedules) {
  const auto num_slots = [](Schedule schedule, const PipelinePlace& place, int64_t m) {
    return plan_slots(pipeline_step(schedule, place, m)).num_slots;
  };
  EXPECT_EQ(num_slots(Schedule::kOneFOneB, {}, 5), 1);
  for (int64_t s = 0; s < 8; ++s) {
    EXPECT_EQ(num_slots(Schedule::kOneFOneB, {s, 8}, 20), 8 - s);
    EXPECT_EQ(num_slots(Schedule::kZeroBubble, {s, 8}, 20), 8);
    EXPECT_EQ(num_slots(Schedule::kZeroBubble, {s, 8}, 3), 3);
    for (const int64_t v : {2, 4})
      EXPECT_EQ(num_slots(Schedule::kInterleaved, {s, 8, v}, 32), (v - 1) * 8 + 2 * (7 - s) + 1);
  }
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
