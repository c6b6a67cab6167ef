// Run states that ranks write and read together.
#include "checkpoint/state_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "base/simulated_disk.h"
#include "checkpoint/files.h"
#include "checkpoint/state_helpers.h"
#include "comm/world.h"

namespace temper::checkpoint {
namespace {

using test::SimulatedDisk;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kSize = 103;

float element(int64_t step, int64_t i) { return static_cast<float>(step * 1000 + i); }

// Element i of "shared" belongs to rank i * ranks / kSize; "single" to the last rank. skipped: an element that nobody
// writes. Returns the error.
std::string write_together(Files& disk, int64_t step, int64_t num_ranks, int64_t skipped = -1) {
  return error_of([&] {
    comm::run_ranks(num_ranks, [&](comm::Comm& world) {
      StateLog log("state", {.keep_last = 9}, disk);
      const int64_t rank = world.rank(), begin = rank * kSize / num_ranks, end = (rank + 1) * kSize / num_ranks;
      std::vector<float> mine;
      for (int64_t i = begin; i < end; ++i) mine.push_back(element(step, i));
      const int64_t single = step;
      StateContents contents{step, {{"rank", rank}}, {}, std::nullopt};
      const bool skips = begin <= skipped && skipped < end;
      contents.tensors.emplace_back("shared", DType::kF32, Shape{kSize}, mine.data(), begin, skips ? skipped : end);
      if (rank == num_ranks - 1) contents.tensors.emplace_back("single", DType::kI64, Shape{1, 1}, &single);
      if (rank == 0) log.prepare(step);
      world.barrier(nullptr, {"prepared"});
      const auto parts = gather_parts(&world, log.write_part(contents, rank));
      if (rank > 0) return;
      try {
        log.publish(contents, parts);
      } catch (const Error&) {
        log.discard();
        throw;
      }
    });
  });
}

// Opens the newest state with so many ranks; each reads a range that crosses pieces.
int64_t read_together(Files& disk, int64_t num_ranks, std::vector<DamagedState>* damaged_by_rank = nullptr) {
  std::mutex mutex;
  int64_t opened = -1;
  comm::run_ranks(num_ranks, [&](comm::Comm& world) {
    StateLog log("state", {}, disk);
    std::vector<DamagedState> damaged;
    const auto state = open_newest(log, kAnyStep, damaged, &world);
    if (damaged_by_rank) damaged_by_rank[world.rank()] = damaged;
    if (!state) return;
    EXPECT_EQ(state->facts().dump(), R"({"rank":0})");
    const int64_t begin = world.rank() * 7, end = kSize - world.rank();
    std::vector<float> values(static_cast<size_t>(end - begin));
    state->read(*state->find("shared"), begin, end, values.data());
    const std::lock_guard lock(mutex);
    for (int64_t i = begin; i < end; ++i) EXPECT_EQ(values[static_cast<size_t>(i - begin)], element(state->step(), i));
    EXPECT_EQ(bytes_of(*state, "single").size(), 8u);
    EXPECT_TRUE(opened < 0 || opened == state->step());
    opened = state->step();
  });
  return opened;
}

TEST(StateRanks, WhatSomeRanksWriteAnyOthersRead) {
  for (const int64_t writers : {1, 2, 3, 5}) {
    SimulatedDisk disk;
    EXPECT_EQ(write_together(disk, 10, writers), "no error");
    EXPECT_EQ(disk.list("state/step-00000010").size(), static_cast<size_t>(writers) + 1)
        << "a file of each, a manifest";
    for (const int64_t readers : {1, 2, 4}) EXPECT_EQ(read_together(disk, readers), 10) << writers << ", " << readers;
  }
}

TEST(StateRanks, AnElementThatNobodyWroteIsNamedAndNothingIsPublished) {
  SimulatedDisk disk;
  write_together(disk, 10, 2);
  EXPECT_THAT(write_together(disk, 20, 2, kSize - 1),
              HasSubstr(".writing-00000020/manifest.json: tensor shared: its pieces end at element 102, the tensor has "
                        "103"));
  EXPECT_THAT(write_together(disk, 20, 2, 40), HasSubstr("tensor shared: piece number 1: begin must be 40"));
  EXPECT_THAT(disk.list("state"), ElementsAre("step-00000010"));
}

// Whoever's share of the bytes the damage is in.
TEST(StateRanks, DamageIsFoundAndAllRanksTakeTheSameOlderState) {
  constexpr int64_t kReaders = 3;
  SimulatedDisk disk;
  write_together(disk, 10, 2);
  write_together(disk, 20, 2);
  for (const std::string name : {"tensors-00000.safetensors", "tensors-00001.safetensors", kManifestName}) {
    const std::filesystem::path path = "state/step-00000020/" + name;
    const std::string right = disk.get(path);
    for (const size_t at : {size_t{0}, right.size() / 2, right.size() - 1}) {
      std::string bytes = right;
      bytes[at] ^= 1;
      disk.put(path, bytes);
      std::vector<DamagedState> damaged[kReaders];
      EXPECT_EQ(read_together(disk, kReaders, damaged), 10) << name << " " << at;
      for (const auto& list : damaged) {
        ASSERT_EQ(list.size(), 1u);
        EXPECT_EQ(list[0].step, 20);
        EXPECT_EQ(list[0].reason, damaged[0][0].reason);
        EXPECT_THAT(list[0].reason, HasSubstr("step-00000020/" + name));
      }
    }
    disk.put(path, right);
  }
  EXPECT_EQ(read_together(disk, kReaders), 20);
}

// One process has it, as a machine would whose directory is not the others'.
TEST(StateRanks, ADirectoryThatRanksDoNotShareIsRefused) {
  SimulatedDisk disks[2];
  write_together(disks[0], 10, 1);
  comm::run_ranks(2, [&](comm::Comm& world) {
    StateLog log("state", {}, disks[world.rank()]);
    std::vector<DamagedState> damaged;
    EXPECT_FALSE(open_newest(log, kAnyStep, damaged, &world).has_value());
    ASSERT_EQ(damaged.size(), 1u);
    EXPECT_EQ(damaged[0].reason, "rank 1: there is no run state of step 10 in state");
  });
}

}  // namespace
}  // namespace temper::checkpoint
