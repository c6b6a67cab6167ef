// temper inspect on run states: which verify, which are damaged and why, and what the newest says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "app/run_binary.h"
#include "base/file.h"
#include "base/scratch_dir.h"
#include "checkpoint/state_log.h"

namespace temper::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class InspectState : public testing::Test {
 protected:
  void SetUp() override {
    const std::vector<float> values(1000, 0.5f);
    checkpoint::StateLog log(directory_.path() / "state", {});
    for (const int64_t step : {10, 20, 30}) {
      checkpoint::StateContents contents;
      contents.step = step;
      contents.score = 2.5;
      contents.facts = {{"loader", {{"epoch", 1}, {"row", step * 7}}}, {"note", "\x1b[2J"}};
      contents.tensors = {{"weight", DType::kF32, {10, 100}, values.data()}};
      hash_ = log.write(contents);
    }
    log.pin(20);
    const auto tensors = state(10) / checkpoint::tensor_file_name(0);
    std::string bytes = read_file(tensors);
    bytes.back() ^= 1;
    write_file_atomically(tensors, bytes);
  }
  std::filesystem::path state(int64_t step) const {
    return directory_.path() / "state" / ("step-000000" + std::to_string(step));
  }

  ScratchDir directory_;
  std::string hash_;  // of step 30
};

TEST_F(InspectState, OfARunSaysWhichStatesAreGood) {
  for (const auto& path : {directory_.path(), directory_.path() / "state"}) {
    const RunResult result = run_temper({"inspect", path.string()});
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr("step       10  damaged: " + state(10).string()));
    EXPECT_THAT(result.output, HasSubstr("tensor weight does not have the checksum"));
    EXPECT_THAT(result.output, HasSubstr("verified, score 2.5, pinned"));
    EXPECT_THAT(result.output, HasSubstr("hash " + hash_ + "  verified, score 2.5\n"));
    EXPECT_THAT(result.output, HasSubstr("  1 tensors F32, 3.91 KiB\n"));
    EXPECT_THAT(result.output, HasSubstr("  loader.row = 210\n"));
    EXPECT_THAT(result.output, HasSubstr("  note = \"\\u001b[2J\"\n"));
  }
}

TEST_F(InspectState, OfOneStateSaysWhatItHolds) {
  const RunResult good = run_temper({"inspect", state(20).string()});
  EXPECT_EQ(good.exit_code, 0) << good.output;
  EXPECT_THAT(good.output, HasSubstr("  loader.row = 140\n"));
  const RunResult damaged = run_temper({"inspect", state(10).string()});
  EXPECT_EQ(damaged.exit_code, 2);
  EXPECT_THAT(damaged.output, HasSubstr("tensor weight does not have the checksum"));
  EXPECT_THAT(damaged.output, Not(HasSubstr("loader")));
}

}  // namespace
}  // namespace temper::test
