#include "checkpoint/state_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "base/simulated_disk.h"
#include "checkpoint/files.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/state_helpers.h"

namespace temper::checkpoint {
namespace {

using test::SimulatedDisk;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(StateLogTest, WhatIsWrittenIsRead) {
  const ScratchDir dir;
  StateLog log(dir / "state", {});
  EXPECT_THAT(log.steps(), IsEmpty());
  const SmallState written(120, 1.5);
  const std::string hash = log.write(written.contents());
  EXPECT_THAT(log.steps(), ElementsAre(120));
  const OpenedState read = StateLog(dir / "state", {}).open(120);
  EXPECT_EQ(read.hash(), hash);
  EXPECT_TRUE(written.equals(read));
  EXPECT_EQ(bytes_of(read, "empty"), "");
  EXPECT_EQ(read.find("nothing"), nullptr);
  EXPECT_EQ(system_files().list(dir / "state"), std::vector<std::string>{"step-00000120"});
}

TEST(StateLogTest, TheTensorsAreASafetensorsFile) {
  const ScratchDir dir;
  const SmallState written(3);
  StateLog(dir / "state/", {}).write(written.contents());
  const SafetensorsFile file(dir / "state" / "step-00000003" / "tensors-00000.safetensors");
  ASSERT_EQ(file.tensors().size(), 3u) << "all but the empty one";
  EXPECT_EQ(file.find("floats")->to_string(), "F32 [2, 3]");
  EXPECT_EQ(std::memcmp(file.find("halves")->data, written.contents().tensors[0].data, 10), 0);
}

// More than one piece of reading and writing, and a rest.
TEST(StateLogTest, LongTensorsAreReadAsWritten) {
  SimulatedDisk disk;
  std::vector<float> values(700'001);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  StateContents contents;
  contents.tensors = {{"long", DType::kF32, {700'001}, values.data()}};
  StateLog log("state", {}, disk);
  log.write(contents);
  const OpenedState read = log.open(0);
  EXPECT_EQ(read.num_bytes(), read.files()[0].header_bytes + 2'800'004);
  EXPECT_EQ(bytes_of(read, "long"), std::string(reinterpret_cast<const char*>(values.data()), 2'800'004));
}

TEST(StateLogTest, EqualStatesHaveEqualHashesAndOthersOthers) {
  SimulatedDisk disk;
  StateLog log("state", {}, disk);
  const std::string first = log.write(SmallState(7).contents());
  EXPECT_EQ(log.write(SmallState(7).contents()), first);
  const SmallState other(7, std::nullopt, 1);
  EXPECT_NE(log.write(other.contents()), first);
  EXPECT_TRUE(other.equals(log.open(7)));
  EXPECT_EQ(disk.list("state"), std::vector<std::string>{"step-00000007"});
}

TEST(StateLogTest, StepsOfMoreDigitsAreStates) {
  SimulatedDisk disk;
  StateLog log("state", {}, disk);
  log.write(SmallState(123'456'789).contents());
  disk.make_directories("state/step-1");
  disk.make_directories("state/step-0000000x");
  EXPECT_THAT(log.steps(), ElementsAre(123'456'789));
}

TEST(StateLogTest, AFactThatIsNotTextIsRefusedAndNothingIsLeft) {
  SimulatedDisk disk;
  StateLog log("state", {}, disk);
  StateContents contents;
  contents.facts["path"] = "\xff";
  EXPECT_THAT(error_of([&] { log.write(contents); }), HasSubstr("invalid argument: the run state cannot be written"));
  EXPECT_THAT(disk.list("state"), IsEmpty());
}

TEST(StateLogTest, AnUnfinishedDirectoryIsNoStateAndIsRemovedByTheNextWrite) {
  SimulatedDisk disk;
  disk.make_directories("state/.writing-00000009");
  disk.put("state/.writing-00000009/tensors-00000.safetensors", "half");
  StateLog log("state", {}, disk);
  EXPECT_THAT(log.steps(), IsEmpty());
  log.write(SmallState(10).contents());
  EXPECT_EQ(disk.list("state"), std::vector<std::string>{"step-00000010"});
}

TEST(StateLogTest, ARenamedStateIsRefused) {
  SimulatedDisk disk;
  StateLog log("state", {}, disk);
  log.write(SmallState(10).contents());
  disk.rename("state/step-00000010", "state/step-00000020");
  EXPECT_EQ(error_of([&] { log.open(20); }),
            "corrupt file: state/step-00000020: this is the state of step 10; the directory has been renamed");
  EXPECT_EQ(error_of([&] { log.open(10); }), "not found: there is no run state of step 10 in state");
}

struct RetentionCase {
  const char* what;
  Retention retention;
  std::vector<int64_t> pinned, expected;
};

// Scores by step: 10: 5, 20: 3, 30: none, 40: 4, 50: 6.
TEST(StateRetention, Table) {
  const std::vector<RetentionCase> cases = {
      {"last", {.keep_last = 2}, {}, {40, 50}},
      {"one", {.keep_last = 1}, {}, {50}},
      {"more than there are", {.keep_last = 9}, {}, {10, 20, 30, 40, 50}},
      {"every", {.keep_last = 1, .keep_every = 20}, {}, {20, 40, 50}},
      {"best", {.keep_last = 1, .keep_best = 2}, {}, {20, 40, 50}},
      {"best among last", {.keep_last = 4, .keep_best = 1}, {}, {20, 30, 40, 50}},
      {"all that have scores", {.keep_last = 1, .keep_best = 9}, {}, {10, 20, 40, 50}},
      {"pinned", {.keep_last = 1}, {10, 30}, {10, 30, 50}},
      {"all rules", {.keep_last = 1, .keep_every = 30, .keep_best = 1}, {10}, {10, 20, 30, 50}},
  };
  for (const auto& test : cases) {
    SimulatedDisk disk;
    StateLog log("state", test.retention, disk);
    log.write(SmallState(10, 5.0).contents());
    log.write(SmallState(20, 3.0).contents());
    log.write(SmallState(30).contents());
    log.write(SmallState(40, 4.0).contents());
    log.write(SmallState(50, 6.0).contents());
    for (const int64_t step : test.pinned) log.pin(step);
    StateLog next_process("state", test.retention, disk);
    next_process.retain();
    EXPECT_EQ(log.steps(), test.expected) << test.what;
    EXPECT_THAT(next_process.retain(), IsEmpty()) << test.what;
  }
}

TEST(StateRetention, ARuleThatKeepsNothingIsRefused) {
  EXPECT_THAT(error_of([] { StateLog log("state", {.keep_last = 0}); }), HasSubstr("keep_last 0 must be at least 1"));
}

void damage(SimulatedDisk& disk, int64_t step) {
  const std::filesystem::path path = fmt::format("state/step-{:08}/{}", step, kTensorFileName);
  std::string bytes = disk.get(path);
  bytes.back() ^= 1;
  disk.put(path, bytes);
}

TEST(StateRetention, ADamagedStateDoesNotCount) {
  SimulatedDisk disk;
  for (const int64_t step : {10, 20, 30, 40}) StateLog("state", {}, disk).write(SmallState(step).contents());
  damage(disk, 40);
  damage(disk, 20);
  StateLog log("state", {.keep_last = 2}, disk);
  EXPECT_THAT(log.retain(), ElementsAre(20)) << "40 is newer than the last good one: left for the user to look at";
  EXPECT_THAT(log.steps(), ElementsAre(10, 30, 40));
}

TEST(StateRetention, TheLastGoodStateStaysWhateverItsAge) {
  SimulatedDisk disk;
  for (const int64_t step : {10, 20, 30}) StateLog("state", {}, disk).write(SmallState(step).contents());
  damage(disk, 20);
  damage(disk, 30);
  StateLog log("state", {.keep_last = 1}, disk);
  EXPECT_THAT(log.retain(), IsEmpty());
  damage(disk, 10);
  EXPECT_THAT(StateLog("state", {.keep_last = 1}, disk).retain(), IsEmpty()) << "nothing is good, nothing goes";
  EXPECT_THAT(log.steps(), ElementsAre(10, 20, 30));
}

TEST(StateRetention, ADamagedBestIsNotTheBest) {
  SimulatedDisk disk;
  StateLog("state", {}, disk).write(SmallState(10, 1.0).contents());
  StateLog("state", {}, disk).write(SmallState(20, 2.0).contents());
  StateLog("state", {}, disk).write(SmallState(30, 3.0).contents());
  damage(disk, 10);
  StateLog log("state", {.keep_last = 1, .keep_best = 1}, disk);
  log.retain();
  EXPECT_THAT(log.steps(), ElementsAre(20, 30));
}

TEST(StateRetention, AReplacedStateStaysPinned) {
  SimulatedDisk disk;
  StateLog log("state", {.keep_last = 1}, disk);
  log.write(SmallState(10).contents());
  log.pin(10);
  log.write(SmallState(10, std::nullopt, 1).contents());
  log.write(SmallState(20).contents());
  EXPECT_THAT(log.retain(), IsEmpty());
  EXPECT_TRUE(log.is_pinned(10));
  EXPECT_FALSE(log.is_pinned(20));
}

TEST(StateLogOnFullDisk, TheWriteFailsTheOldStaysALaterOneSucceeds) {
  SimulatedDisk disk;
  StateLog log("state", {}, disk);
  const SmallState old(10), next(20);
  log.write(old.contents());
  const int64_t used = disk.used_bytes();
  for (int64_t room = 0; room < used; room += 40) {
    disk.set_capacity(used + room);
    EXPECT_THAT(error_of([&] { log.write(next.contents()); }), HasSubstr("No space left on device"));
    EXPECT_EQ(disk.used_bytes(), used) << "the attempt must not keep the disk full";
    EXPECT_TRUE(old.equals(log.open(10)));
  }
  disk.set_capacity(-1);
  log.write(next.contents());
  EXPECT_TRUE(next.equals(log.open(20)));
}

// The system refuses to let a file grow: a real refusal of a real disk.
TEST(StateLogOnFullDisk, ARealFileThatMayNotGrow) {
  const ScratchDir dir;
  StateLog log(dir / "state", {});
  const SmallState old(10), next(20);
  log.write(old.contents());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{300, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string refused = error_of([&] { log.write(next.contents()); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(refused, HasSubstr("input/output: cannot write " + (dir / "state").string()));
  EXPECT_THAT(refused, HasSubstr("File too large"));
  EXPECT_EQ(system_files().list(dir / "state"), std::vector<std::string>{"step-00000010"});
  EXPECT_TRUE(old.equals(log.open(10)));
  log.write(next.contents());
  EXPECT_TRUE(next.equals(log.open(20)));
}

}  // namespace
}  // namespace temper::checkpoint
