// A test with a folder of its own for whole runs of the tiny model.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "train/run_config.h"
#include "train/run_folder.h"

namespace temper::train::testing {

class RunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = std::filesystem::path(::testing::TempDir()) /
           ("temper_" + std::string(test->test_suite_name()) + "_" + test->name());
    std::filesystem::remove_all(dir_);
    make_run_folder(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void write(const std::string& name, const std::string& contents) { std::ofstream(dir_ / name) << contents; }
  std::string at(const std::string& name) const { return (dir_ / name).string(); }
  RunConfig config(const std::vector<std::string>& overrides = {}) const {
    return parse_run_config(run_file_text(dir_), "RUN.toml", overrides);
  }
  // key="dir_/file"
  std::string set(const std::string& key, const std::string& file) const { return key + "=\"" + at(file) + "\""; }

  std::filesystem::path dir_;
};

}  // namespace temper::train::testing
