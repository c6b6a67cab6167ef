#include "base/append_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

class AppendFileOnDisk : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  const fs::path folder_ =
      fs::path(testing::TempDir()) /
      ("temper_append_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
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

}  // namespace
}  // namespace temper
