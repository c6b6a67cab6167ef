#include "comm/doing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace temper::comm {
namespace {

using ::testing::HasSubstr;

TEST(DoingTest, NeighboursAreWrittenAsARange) {
  EXPECT_EQ(format_ranks(std::vector<int64_t>{3}), "rank 3");
  EXPECT_EQ(format_ranks(std::vector<int64_t>{0, 1, 2, 4}), "ranks 0, 1, 2, 4");
  EXPECT_EQ(format_ranks(std::vector<int64_t>{0, 2, 3, 4, 5, 6, 9}), "ranks 0, 2-6, 9");
}

TEST(DoingTest, AThousandWaitingRanksTakeALine) {
  std::vector<RankReport> ranks(1000);
  for (size_t r = 0; r < ranks.size(); ++r) {
    Doing& doing = ranks[r].doing;
    doing.process = 5000 + static_cast<int64_t>(r);
    doing.id = {.op = Op::kAllReduce, .dtype = DType::kF32, .layer = 4, .num_bytes = 3 << 19, .step = 7};
    doing.call = 812;
    doing.set_group("dp");
    doing.set_what("gradients");
    doing.set_instruction("backward of micro-batch 3");
    doing.state = r == 17 ? State::kComputing : State::kWaiting;
    doing.waits_for = r == 17 ? -1 : 17;
    ranks[r].seconds = r == 17 ? 61 : 60 - static_cast<double>(r) * 1e-3;
  }
  EXPECT_EQ(
      explain_wait(3, ranks),
      "rank 17 (process 5017) is stuck computing: step 7, backward of micro-batch 3, since 61.0 s; ranks 0-16, 18-999 "
      "wait for it in gradients of layer 4 (all_reduce in dp, call 812, f32, 1.5 MiB):\n"
      "  ranks 0-16, 18-999: waiting for rank 17 in gradients of layer 4 (all_reduce in dp, call 812, f32, 1.5 MiB): "
      "step 7, backward of micro-batch 3, since 60.0 s\n"
      "  rank 17 (process 5017): computing: step 7, backward of micro-batch 3, since 61.0 s");
}

TEST(DoingTest, TextsAreCutToTheirPlaces) {
  Doing doing;
  doing.set_instruction(std::string(500, 'x'));
  doing.set_group("a group with a long name");
  EXPECT_EQ(std::string(doing.instruction), std::string(sizeof doing.instruction - 1, 'x'));
  EXPECT_EQ(std::string(doing.group), "a group with a ");
}

}  // namespace
}  // namespace temper::comm
