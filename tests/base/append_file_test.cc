#include "base/append_file.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/scratch_dir.h"
#include "base/simulated_disk.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

class AppendFileOnDisk : public testing::Test {
 protected:
  const test::ScratchDir folder_;
  const fs::path path_ = folder_ / "log";
};

TEST_F(AppendFileOnDisk, RecordsAreInTheFileAtOnce) {
  AppendFile log(path_, 0);
  log.write("one\n");
  log.write("two\n");
  EXPECT_EQ(read_file(path_), "one\ntwo\n");
  EXPECT_EQ(log.position(), 8);
  EXPECT_TRUE(log.sync());
  EXPECT_EQ(log.take_news(), "");
}

TEST_F(AppendFileOnDisk, AResumedLogIsCutBackAndGoesOn) {
  write_file_atomically(path_, "one\ntwo\nthr");
  AppendFile log(path_, 4);
  EXPECT_EQ(log.missing_bytes(), 0);
  EXPECT_EQ(log.position(), 4);
  log.write("2\n");
  EXPECT_EQ(read_file(path_), "one\n2\n");
}

TEST_F(AppendFileOnDisk, AShorterLogSaysWhatIsMissing) {
  write_file_atomically(path_, "one\n");
  AppendFile log(path_, 10);
  EXPECT_EQ(log.missing_bytes(), 6);
  EXPECT_EQ(log.position(), 4);
  log.write("two\n");
  EXPECT_EQ(read_file(path_), "one\ntwo\n");
}

TEST_F(AppendFileOnDisk, AFolderThatIsNotThereIsAnError) {
  EXPECT_THROW(AppendFile(folder_ / "missing" / "log", 0), Error);
}

const fs::path kLog = "log";

TEST(AppendFileOnFullDisk, RecordsWaitInMemoryAndAreWrittenLater) {
  test::SimulatedDisk disk;
  AppendFile log(kLog, 0, disk);
  disk.set_capacity(6);
  log.write("one\n");
  EXPECT_EQ(log.take_news(), "");
  log.write("two\n");
  log.write("three\n");
  EXPECT_EQ(disk.get(kLog), "one\n") << "no part of a refused record";
  EXPECT_EQ(log.position(), 14);
  EXPECT_EQ(log.pending_bytes(), 10);
  EXPECT_EQ(
      log.take_news(),
      "cannot write log: No space left on device; the run goes on, the records are kept in memory and written when "
      "the disk takes them");
  EXPECT_EQ(log.take_news(), "") << "once";
  EXPECT_FALSE(log.sync());
  disk.set_capacity(-1);
  log.write("four\n");
  EXPECT_EQ(disk.get(kLog), "one\ntwo\nthree\nfour\n");
  EXPECT_EQ(log.take_news(), "log: the disk takes records again, all that were kept are written");
  EXPECT_TRUE(log.sync());
  EXPECT_EQ(log.position(), 19);
  EXPECT_EQ(log.pending_bytes(), 0);
}

TEST(AppendFileOnFullDisk, TheLastTryIsTheDestructors) {
  test::SimulatedDisk disk;
  {
    AppendFile log(kLog, 0, disk);
    disk.set_capacity(0);
    log.write("one\n");
    disk.set_capacity(-1);
  }
  EXPECT_EQ(disk.get(kLog), "one\n");
}

TEST(AppendFileOnFullDisk, MemoryIsBoundedAndLossIsTold) {
  test::SimulatedDisk disk;
  AppendFile log(kLog, 0, disk);
  disk.set_capacity(0);
  const std::string record(AppendFile::kMaxKeptBytes / 2, 'x');
  log.write(record);
  log.write(record);
  log.take_news();
  EXPECT_EQ(log.lost_records(), 0);
  log.write("lost");
  log.write("lost too");
  EXPECT_EQ(log.lost_records(), 2);
  EXPECT_NE(log.take_news().find("records are lost"), std::string::npos);
  EXPECT_EQ(log.position(), AppendFile::kMaxKeptBytes);
}

// What a failed sync lost is in the file as programs see it, and would not survive a crash if it were not written
// again.
TEST(AppendFileAfterFailedSync, RecordsSurviveTheNextSync) {
  test::SimulatedDisk disk;
  AppendFile log(kLog, 0, disk);
  log.write("one\n");
  EXPECT_TRUE(log.sync());
  log.write("two\n");
  disk.refuse(1, EIO);
  EXPECT_FALSE(log.sync());
  EXPECT_NE(log.take_news(), "");
  log.write("three\n");
  EXPECT_EQ(log.take_news(), "") << "only a sync tells that it is over";
  EXPECT_TRUE(log.sync());
  EXPECT_NE(log.take_news().find("again"), std::string::npos);
  disk.crash(0);
  EXPECT_EQ(disk.get(kLog), "one\ntwo\nthree\n");
}

// Writes ten records, syncing after every third; says how many bytes the last successful sync vouched for.
int64_t write_ten(AppendFile& log) {
  int64_t synced = 0;
  for (int i = 0; i < 10; ++i) {
    log.write("record " + std::to_string(i) + "\n");
    if (i % 3 == 2 && log.sync()) synced = log.position();
  }
  return synced;
}

std::string ten_records() {
  std::string all;
  for (int i = 0; i < 10; ++i) all += "record " + std::to_string(i) + "\n";
  return all;
}

TEST(AppendFileUnderFaults, EveryRefusedOperationCostsNothing) {
  for (const int reason : {EIO, ENOSPC}) {
    for (int64_t n = 1;; ++n) {
      test::SimulatedDisk disk;
      AppendFile log(kLog, 0, disk);
      const int64_t before = disk.num_operations();
      disk.refuse(n, reason);
      write_ten(log);
      if (disk.num_operations() - before < n) break;
      EXPECT_TRUE(log.sync()) << n;
      EXPECT_EQ(disk.get(kLog), ten_records()) << n;
      disk.crash(0);
      EXPECT_EQ(disk.get(kLog), ten_records()) << n;
    }
  }
}

TEST(AppendFileUnderFaults, ACrashKeepsWhatWasSyncedAndAResumedLogGoesOn) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    for (int64_t n = 1; n < 16; ++n) {
      test::SimulatedDisk disk;
      int64_t synced = 0;
      {
        AppendFile log(kLog, 0, disk);
        disk.lose_power_at(n);
        synced = write_ten(log);
      }
      disk.crash(seed);
      AppendFile resumed(kLog, synced, disk);
      EXPECT_EQ(resumed.missing_bytes(), 0);
      EXPECT_EQ(disk.get(kLog), ten_records().substr(0, static_cast<size_t>(synced))) << n << " " << seed;
      resumed.write("more\n");
      EXPECT_EQ(disk.get(kLog), ten_records().substr(0, static_cast<size_t>(synced)) + "more\n");
    }
  }
}

}  // namespace
}  // namespace temper
