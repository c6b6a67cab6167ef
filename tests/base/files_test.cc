#include "base/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/scratch_dir.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

class SystemFilesTest : public testing::Test {
 protected:
  Files& files_ = system_files();
  const test::ScratchDir scratch_;
  const fs::path folder_ = scratch_.path();
  const fs::path path_ = folder_ / "data";
};

template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return std::string(error_code_name(error.code())) + ": " + error.what();
  }
  return "no error";
}

TEST_F(SystemFilesTest, WritesCutsAndReads) {
  auto out = files_.create(path_);
  out->write("abcdef", 6);
  out->truncate(2);
  out->write("xyz", 3);
  EXPECT_EQ(out->size(), 5);
  out->sync();
  files_.sync_directory(folder_);
  EXPECT_EQ(read_file(path_), "abxyz");
  const auto in = files_.open_read(path_);
  char bytes[3];
  in->read(bytes, 3, 2);
  EXPECT_EQ(std::string(bytes, 3), "xyz");
  EXPECT_EQ(error_of([&] { in->read(bytes, 3, 3); }),
            "corrupt file: " + path_.string() + ": the file ends at byte 5, 1 more were expected");
}

TEST_F(SystemFilesTest, AppendKeepsTheBeginning) {
  write_file_atomically(path_, "abcdef");
  files_.append(path_, 4)->write("X", 1);
  EXPECT_EQ(read_file(path_), "abcdX");
  auto shorter = files_.append(path_, 100);
  EXPECT_EQ(shorter->size(), 5);
  shorter->write("Y", 1);
  EXPECT_EQ(read_file(path_), "abcdXY");
}

TEST_F(SystemFilesTest, DirectoriesAreMadeListedRenamedAndRemoved) {
  files_.make_directories(folder_ / "a" / "b");
  files_.make_directories(folder_ / "a" / "b");
  write_file_atomically(folder_ / "a" / "b" / "file", "x");
  EXPECT_EQ(files_.list(folder_ / "a"), std::vector<std::string>{"b"});
  files_.rename(folder_ / "a", folder_ / "c");
  EXPECT_FALSE(files_.exists(folder_ / "a"));
  EXPECT_EQ(read_file(folder_ / "c" / "b" / "file"), "x");
  files_.make_directories(folder_ / "full" / "x");
  EXPECT_NE(error_of([&] { files_.rename(folder_ / "c", folder_ / "full"); }), "no error");
  files_.remove_all(folder_ / "c");
  EXPECT_FALSE(files_.exists(folder_ / "c"));
  files_.remove_all(folder_ / "c");
}

TEST_F(SystemFilesTest, RemovingALinkLeavesWhatItPointsTo) {
  write_file_atomically(path_, "kept");
  files_.make_directories(folder_ / "links");
  fs::create_symlink(folder_, folder_ / "links" / "up");
  files_.remove_all(folder_ / "links");
  EXPECT_EQ(read_file(path_), "kept");
}

TEST_F(SystemFilesTest, ErrorsSayPathAndReason) {
  const std::string missing = (folder_ / "missing").string();
  EXPECT_EQ(error_of([&] { files_.open_read(missing); }),
            "not found: cannot open " + missing + ": No such file or directory");
  EXPECT_EQ(error_of([&] { files_.list(missing); }),
            "not found: cannot list " + missing + ": No such file or directory");
  EXPECT_EQ(error_of([&] { files_.create(missing + "/x"); }),
            "input/output: cannot write " + missing + "/x: No such file or directory");
  EXPECT_EQ(error_of([&] { files_.sync_directory(missing); }),
            "input/output: cannot open the directory " + missing + ": No such file or directory");
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { files_.open_read(path_); }),
            "input/output: cannot use " + path_.string() + ": not a regular file");
}

TEST_F(SystemFilesTest, NothingIsWrittenThroughALink) {
  write_file_atomically(path_, "kept");
  const fs::path link = folder_ / "link";
  fs::create_symlink(path_, link);
  EXPECT_EQ(error_of([&] { files_.append(link, 0); }),
            "input/output: cannot write " + link.string() + ": a link; remove it, or give another directory");
  files_.create(link)->write("new", 3);
  EXPECT_EQ(read_file(link), "new");
  EXPECT_EQ(read_file(path_), "kept");
  fs::create_hard_link(path_, folder_ / "hard");
  files_.create(folder_ / "hard");
  EXPECT_EQ(read_file(path_), "kept");
}

TEST_F(SystemFilesTest, ADirectoryIsNotAFile) {
  EXPECT_EQ(error_of([&] { files_.open_read(folder_); }),
            "input/output: cannot use " + folder_.string() + ": not a regular file");
  EXPECT_EQ(error_of([&] { files_.create(folder_); }),
            "input/output: cannot write " + folder_.string() + ": Is a directory");
}

}  // namespace
}  // namespace temper
