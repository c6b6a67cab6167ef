// What is left of a log of run states when the disk refuses any one operation, or the machine stops at any of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>

#include "base/simulated_disk.h"
#include "checkpoint/files.h"
#include "checkpoint/state_helpers.h"

namespace temper::checkpoint {
namespace {

using test::SimulatedDisk;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr Retention kKeepOne{.keep_last = 1};
constexpr uint64_t kNumSeeds = 8;

// A disk with states of these steps.
class Disk : public SimulatedDisk {
 public:
  explicit Disk(const std::vector<int64_t>& steps = {10, 20}) {
    make_directories("run");
    sync_directory("");
    StateLog log("run/state", kKeepOne, *this);
    for (const int64_t step : steps) log.write(SmallState(step).contents());
  }
};

// Writes, then retains, which must do no harm after a failed write either; whether the write succeeded.
bool save(SimulatedDisk& disk, const SmallState& state) {
  StateLog log("run/state", kKeepOne, disk);
  bool is_saved = true;
  try {
    log.write(state.contents());
  } catch (const Error&) {
    is_saved = false;
  }
  try {
    log.retain();
  } catch (const Error&) {  // old states stay
  }
  return is_saved;
}

// Every state verifies, and the newest is `state` or, unless that was saved, `before`.
void expect_newest(SimulatedDisk& disk, const SmallState& state, bool is_saved, const SmallState& before,
                   const std::string& what) {
  StateLog log("run/state", kKeepOne, disk);
  std::vector<DamagedState> damaged;
  const auto newest = log.open_newest(kAnyStep, damaged);
  for (const auto& bad : damaged) ADD_FAILURE() << what << ": " << bad.reason;
  ASSERT_TRUE(newest.has_value()) << what;
  EXPECT_TRUE(state.equals(*newest) || (!is_saved && before.equals(*newest))) << what << ", step " << newest->step();
  for (const int64_t step : log.steps()) EXPECT_EQ(error_of([&] { log.open(step); }), "no error") << what;
}

// The next save puts everything right.
void expect_next_save(SimulatedDisk& disk, const std::string& what) {
  const SmallState next(40);
  ASSERT_TRUE(save(disk, next)) << what;
  expect_newest(disk, next, true, next, what);
  const auto names = disk.list("run/state");
  EXPECT_EQ(names.size(), 1u) << what << ": " << testing::PrintToString(names);
  disk.crash(0);
  expect_newest(disk, next, true, next, what + ", and a crash");
}

// Calls body(n) for n = 1, 2, ... until it says that fewer than n operations were made; that is more than 15.
void for_every_operation(const std::function<bool(int64_t)>& body) {
  int64_t n = 1;
  while (body(n)) ++n;
  EXPECT_GT(n, 15) << "the faults did not reach the writer";
}

void refuse_every_operation(const SmallState& state, const SmallState& before) {
  for (const int reason : {EIO, ENOSPC}) {
    for_every_operation([&](int64_t n) {
      Disk disk;
      const std::string what = fmt::format("operation {} refused with {}", n, reason);
      const int64_t made = disk.num_operations();
      disk.refuse(n, reason);
      const bool is_saved = save(disk, state);
      const bool is_reached = disk.num_operations() - made >= n;
      expect_newest(disk, state, is_saved, before, what);
      disk.crash(0);
      expect_newest(disk, state, is_saved, before, what + ", then a crash");
      expect_next_save(disk, what);
      return is_reached;
    });
  }
}

TEST(StateFaults, AnyRefusedOperationLeavesTheLastGoodState) { refuse_every_operation(SmallState(30), SmallState(20)); }

TEST(StateFaults, AnyRefusedOperationWhileAStateIsReplacedLeavesOneOfTheTwo) {
  refuse_every_operation(SmallState(20, std::nullopt, 1), SmallState(20));
}

void crash_at_every_operation(const SmallState& state, const SmallState& before) {
  for (uint64_t seed = 0; seed < kNumSeeds; ++seed) {
    for_every_operation([&](int64_t n) {
      Disk disk;
      const std::string what = fmt::format("crash at operation {}, seed {}", n, seed);
      const int64_t made = disk.num_operations();
      disk.lose_power_at(n);
      const bool is_saved = save(disk, state);
      const bool is_reached = disk.num_operations() - made >= n;
      disk.crash(seed);
      expect_newest(disk, state, is_saved, before, what);
      expect_next_save(disk, what);
      return is_reached;
    });
  }
}

TEST(StateFaults, ACrashAtAnyOperationLeavesTheLastGoodState) {
  crash_at_every_operation(SmallState(30), SmallState(20));
}

TEST(StateFaults, ACrashAtAnyOperationWhileAStateIsReplacedLeavesOneOfTheTwo) {
  crash_at_every_operation(SmallState(20, std::nullopt, 1), SmallState(20));
}

// A refused sync leaves a state whose name is seen and not durable: nothing may be removed on the strength of it.
void crash_after_every_refusal(const SmallState& state, const SmallState& before) {
  for (uint64_t seed = 2; seed < 6; ++seed) {
    for_every_operation([&](int64_t refused) {
      bool is_reached = false;
      for (int64_t later = 1; later < 16; ++later) {
        Disk disk({20});
        const std::string what = fmt::format("{} refused, crash {} later, seed {}", refused, later, seed);
        const int64_t made = disk.num_operations();
        disk.refuse(refused, EIO);
        disk.lose_power_at(refused + later);
        const bool is_saved = save(disk, state);
        is_reached = disk.num_operations() - made >= refused;
        disk.crash(seed);
        expect_newest(disk, state, is_saved, before, what);
      }
      return is_reached;
    });
  }
}

TEST(StateFaults, ACrashAfterARefusedOperationLeavesTheLastGoodState) {
  crash_after_every_refusal(SmallState(30), SmallState(20));
}

TEST(StateFaults, ACrashAfterARefusedOperationWhileAStateIsReplacedLeavesOneOfTheTwo) {
  crash_after_every_refusal(SmallState(20, std::nullopt, 1), SmallState(20));
}

// The machine stops while a state is replaced, and again while the next run puts that right.
TEST(StateFaults, ACrashAfterACrashLeavesOneOfTheTwo) {
  const SmallState state(20, std::nullopt, 1), before(20);
  for (uint64_t seed = 0; seed < 3; ++seed) {
    for_every_operation([&](int64_t first) {
      bool is_reached = false;
      for (int64_t second = 1; second < 24; ++second) {
        Disk disk;
        const std::string what = fmt::format("crash at {}, then at {}, seed {}", first, second, seed);
        const int64_t made = disk.num_operations();
        disk.lose_power_at(first);
        bool is_saved = save(disk, state);
        is_reached = disk.num_operations() - made >= first;
        disk.crash(seed);
        disk.lose_power_at(second);
        is_saved = save(disk, state) || is_saved;
        disk.crash(seed + 2);
        expect_newest(disk, state, is_saved, before, what);
      }
      return is_reached;
    });
  }
}

TEST(StateFaults, TheFirstStateOfARunSurvivesACrash) {
  SimulatedDisk disk;
  disk.make_directories("run");
  disk.sync_directory("");
  const SmallState state(1);
  ASSERT_TRUE(save(disk, state));
  disk.crash(0);
  expect_newest(disk, state, true, state, "first");
}

class DamagedBytes : public testing::Test {
 protected:
  // Puts these bytes in the place of a file of state 20: the damage must be named, and the state of step 10 opened.
  void expect_named(const char* name, const std::string& bytes, const std::string& what) {
    const std::filesystem::path path = std::filesystem::path("run/state/step-00000020") / name;
    const std::string right = disk_.get(path);
    disk_.put(path, bytes);
    std::vector<DamagedState> damaged;
    const auto newest = StateLog("run/state", kKeepOne, disk_).open_newest(kAnyStep, damaged);
    ASSERT_TRUE(newest.has_value()) << what;
    EXPECT_EQ(newest->step(), 10) << what;
    ASSERT_EQ(damaged.size(), 1u) << what;
    EXPECT_EQ(damaged[0].step, 20);
    EXPECT_NE(damaged[0].reason.find("run/state/step-00000020/"), std::string::npos) << damaged[0].reason;
    reason_ = damaged[0].reason;
    disk_.put(path, right);
  }

  Disk disk_;
  std::string reason_;
};

TEST_F(DamagedBytes, AnyFlippedBitIsNamedAndTheStateSkipped) {
  for (const char* name : {kManifestName, kTensorFileName}) {
    const std::string right = disk_.get(std::filesystem::path("run/state/step-00000020") / name);
    for (size_t at = 0; at < right.size(); ++at) {
      std::string bytes = right;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << (at % 8)));
      expect_named(name, bytes, fmt::format("{} byte {}", name, at));
    }
  }
}

TEST_F(DamagedBytes, AnyTruncationIsNamedAndTheStateSkipped) {
  for (const char* name : {kManifestName, kTensorFileName}) {
    const std::string right = disk_.get(std::filesystem::path("run/state/step-00000020") / name);
    for (size_t length = 0; length < right.size(); ++length)
      expect_named(name, right.substr(0, length), fmt::format("{} of {} bytes", name, length));
    expect_named(name, right + '\0', fmt::format("{} and a byte", name));
  }
}

TEST_F(DamagedBytes, ADamagedTensorIsNamed) {
  const std::filesystem::path path = std::filesystem::path("run/state/step-00000020") / kTensorFileName;
  std::string bytes = disk_.get(path);
  bytes.back() ^= 4;
  expect_named(kTensorFileName, bytes, "last byte");
  EXPECT_EQ(reason_, path.string() + ": tensor halves does not have the checksum that the manifest says");
}

TEST_F(DamagedBytes, AnUnreadableFileIsNamedAndTheStateSkipped) {
  const std::filesystem::path path = std::filesystem::path("run/state/step-00000020") / kTensorFileName;
  disk_.refuse_reading(path);
  expect_named(kTensorFileName, disk_.get(path), "unreadable");
  EXPECT_EQ(reason_, "cannot read " + path.string() + ": Input/output error");
}

TEST_F(DamagedBytes, AMissingFileIsNamedAndTheStateSkipped) {
  disk_.remove_all(std::filesystem::path("run/state/step-00000020") / kManifestName);
  std::vector<DamagedState> damaged;
  EXPECT_EQ(StateLog("run/state", kKeepOne, disk_).open_newest(kAnyStep, damaged)->step(), 10);
  ASSERT_EQ(damaged.size(), 1u);
  EXPECT_EQ(damaged[0].reason, "cannot open run/state/step-00000020/manifest.json: No such file or directory");
}

TEST_F(DamagedBytes, TheNewestOfAtMostAStepIsOpened) {
  std::vector<DamagedState> damaged;
  StateLog log("run/state", kKeepOne, disk_);
  EXPECT_EQ(log.open_newest(19, damaged)->step(), 10);
  EXPECT_FALSE(log.open_newest(9, damaged).has_value());
  EXPECT_THAT(damaged, IsEmpty());
}

TEST_F(DamagedBytes, WhatChangesAfterTheOpeningIsNotHandedOut) {
  StateLog log("run/state", kKeepOne, disk_);
  const OpenedState state = log.open(20);
  const std::filesystem::path path = std::filesystem::path("run/state/step-00000020") / kTensorFileName;
  std::string bytes = disk_.get(path);
  bytes.back() ^= 4;
  disk_.put(path, bytes);
  EXPECT_EQ(error_of([&] { bytes_of(state, "halves"); }),
            "corrupt file: " + path.string() + ": tensor halves has changed since the state was opened");
}

}  // namespace
}  // namespace temper::checkpoint
