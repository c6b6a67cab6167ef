// Shared by the tests of data/: files in a folder of their own, shared data that may not be there, expected errors.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "base/scratch_dir.h"

namespace temper::data {

// A fresh folder per test, removed at the end.
class DataTest : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& name, std::string_view contents) const {
    return folder_.write(name, contents);
  }

  const test::ScratchDir folder_;
};

// The folder of public test data that is not part of the project; may not exist.
inline std::filesystem::path shared_data() {
  const char* folder = std::getenv("TEMPER_SHARED_DATA");
  return folder ? std::filesystem::path(folder) : std::filesystem::path(TEMPER_SOURCE_DIR) / ".." / "shared" / "data";
}

// Runs `body` and expects an Error of this code whose message holds each of the parts.
template <class Body>
void expect_error(ErrorCode code, std::initializer_list<std::string_view> parts, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error_code_name(error.code()), std::string(error_code_name(code))) << error.what();
    for (const std::string_view part : parts)
      EXPECT_NE(std::string_view(error.what()).find(part), std::string_view::npos)
          << "\"" << part << "\" is not in: " << error.what();
    return;
  }
  ADD_FAILURE() << "no error was thrown";
}

}  // namespace temper::data

#define SKIP_WITHOUT_SHARED_DATA(name)                \
  if (!std::filesystem::exists(shared_data() / name)) \
  GTEST_SKIP() << "needs the folder " << name << " of the shared data; set TEMPER_SHARED_DATA to it"
