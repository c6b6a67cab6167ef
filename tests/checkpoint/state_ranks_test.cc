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

constexpr int64_t kSize = 103, kRows = 3, kColumns = 4;

float element(int64_t step, int64_t i) { return static_cast<float>(step * 1000 + i); }

std::vector<float> columns_of(int64_t step, int64_t num_ranks) {
  std::vector<float> columns;
  for (int64_t i = 0; i < kRows * kColumns * num_ranks; ++i) columns.push_back(element(step, -i));
  return columns;
}

// Element i of "shared" belongs to rank i * ranks / kSize; "single" to the last rank; of "columns" every rank has
// kColumns, as of what tensor parallelism cuts. skipped: an element of "shared" that nobody writes; overlap: columns
// that each rank but the first writes of the one before. Returns the error.
std::string write_together(Files& disk, int64_t step, int64_t num_ranks, int64_t skipped = -1, int64_t overlap = 0) {
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
      const std::vector<float> columns = columns_of(step, num_ranks);
      const int64_t first = rank * kColumns - (rank > 0 ? overlap : 0);
      for (int64_t row = 0; row < kRows; ++row) {
        const int64_t at = row * num_ranks * kColumns;
        contents.tensors.emplace_back("columns", DType::kF32, Shape{kRows, num_ranks * kColumns}, &columns[at + first],
                                      at + first, at + (rank + 1) * kColumns);
      }
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
    const ManifestTensor& columns = *state->find("columns");
    std::vector<float> read(static_cast<size_t>(columns.shape.size()));
    state->read(columns, 0, columns.shape.size(), read.data());
    EXPECT_EQ(read, columns_of(state->step(), columns.shape[1] / kColumns));
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

TEST(StateRanks, AnElementThatTwoRanksWroteIsNamedAndNothingIsPublished) {
  SimulatedDisk disk;
  write_together(disk, 10, 3);
  EXPECT_THAT(write_together(disk, 20, 3, -1, 1), HasSubstr("tensor columns: piece number 1: begin must be 4"));
  EXPECT_THAT(disk.list("state"), ElementsAre("step-00000010"));
}

// Of a rank's part: nothing, some bytes too few or too many, another rank's, that of another step.
TEST(StateRanks, APartThatIsNotTheOneOfTheManifestIsNamed) {
  SimulatedDisk disk;
  write_together(disk, 10, 3);
  write_together(disk, 20, 3);
  const std::string folder = "state/step-00000020/", older = "state/step-00000010/";
  const std::vector<std::string> names = {"tensors-00000.safetensors", "tensors-00001.safetensors",
                                          "tensors-00002.safetensors"};
  const auto expect_refused = [&](const std::string& name, const std::string& what) {
    std::vector<DamagedState> damaged[2];
    EXPECT_EQ(read_together(disk, 2, damaged), 10) << name << ", " << what;
    for (const auto& list : damaged) {
      ASSERT_EQ(list.size(), 1u) << name << ", " << what;
      EXPECT_THAT(list[0].reason, HasSubstr(folder + name)) << what;
    }
  };
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string right = disk.get(folder + names[i]);
    const std::pair<const char*, std::string> wrong[] = {{"empty", ""},
                                                         {"half", right.substr(0, right.size() / 2)},
                                                         {"a byte less", right.substr(0, right.size() - 1)},
                                                         {"a byte more", right + "x"},
                                                         {"another's", disk.get(folder + names[(i + 1) % 3])},
                                                         {"another step's", disk.get(older + names[i])}};
    for (const auto& [what, bytes] : wrong) {
      disk.put(folder + names[i], bytes);
      expect_refused(names[i], what);
    }
    disk.remove_all(folder + names[i]);
    expect_refused(names[i], "missing");
    disk.put(folder + names[i], right);
  }
  EXPECT_EQ(read_together(disk, 2), 20);
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
