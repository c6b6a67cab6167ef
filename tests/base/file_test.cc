#include "base/file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include "base/error.h"
#include "base/scratch_dir.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

class File : public testing::Test {
 protected:
  const test::ScratchDir folder_;
  const fs::path path_ = folder_ / "data";
  fs::path temporary() const { return path_.string() + ".tmp"; }
};

ErrorCode code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message) *message = error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kCorrupt;
}

TEST_F(File, WhatIsWrittenIsRead) {
  const std::string contents("a\0b\n", 4);
  write_file_atomically(path_, contents);
  EXPECT_EQ(read_file(path_), contents);
  write_file_atomically(path_, "");
  EXPECT_EQ(read_file(path_), "");
  EXPECT_FALSE(fs::exists(temporary()));
}

TEST_F(File, AWriterThatIsNotCommittedLeavesTheOldFile) {
  write_file_atomically(path_, "old");
  {
    AtomicFileWriter writer(path_);
    writer.write("new", 3);
    EXPECT_EQ(read_file(path_), "old");
  }
  EXPECT_EQ(read_file(path_), "old");
  EXPECT_FALSE(fs::exists(temporary()));
}

TEST_F(File, AWriterAppearsWholeWithCommit) {
  const std::string part(100000, 'x');
  AtomicFileWriter writer(path_);
  for (int i = 0; i < 5; ++i) writer.write(part.data(), static_cast<int64_t>(part.size()));
  EXPECT_FALSE(fs::exists(path_));
  writer.commit();
  EXPECT_EQ(fs::file_size(path_), 500000u);
  EXPECT_FALSE(fs::exists(temporary()));
}

// A killed run leaves its temporary file behind; the next write must not trip over it.
TEST_F(File, ALeftoverTemporaryFileIsReplaced) {
  write_file_atomically(temporary(), "half a fi");
  write_file_atomically(path_, "whole");
  EXPECT_EQ(read_file(path_), "whole");
  EXPECT_FALSE(fs::exists(temporary()));
}

TEST_F(File, MapsAWholeFileAndMoves) {
  write_file_atomically(path_, "abcdef");
  MappedFile mapped(path_);
  MappedFile moved(std::move(mapped));
  ASSERT_EQ(moved.size(), 6);
  EXPECT_EQ(std::memcmp(moved.data(), "abcdef", 6), 0);
  write_file_atomically(path_, "new");  // a mapping keeps the file that it opened
  EXPECT_EQ(std::memcmp(moved.data(), "abcdef", 6), 0);
}

TEST_F(File, AnEmptyFileMapsToNothing) {
  write_file_atomically(path_, "");
  EXPECT_EQ(MappedFile(path_).size(), 0);
}

TEST_F(File, ALongFileOfHolesIsNotReadIntoMemory) {
  std::ofstream(path_).put('x');
  std::filesystem::resize_file(path_, (uintmax_t{1} << 32) + 1);
  EXPECT_THROW(read_file(path_), Error);
}

TEST_F(File, ErrorsNameThePath) {
  std::string message;
  EXPECT_EQ(code_of([&] { read_file(path_); }, &message), ErrorCode::kNotFound);
  EXPECT_NE(message.find(path_.string()), std::string::npos) << message;
  EXPECT_EQ(code_of([&] { MappedFile mapped(path_); }), ErrorCode::kNotFound);
  const fs::path nowhere = folder_ / "missing" / "data";
  code_of([&] { write_file_atomically(nowhere, "x"); }, &message);
  EXPECT_NE(message.find(nowhere.string()), std::string::npos) << message;
}

}  // namespace
}  // namespace temper
