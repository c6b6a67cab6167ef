// A test with a folder of its own for whole runs of the tiny model.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/scratch_dir.h"
#include "train/run_config.h"
#include "train/run_folder.h"

namespace temper::train::testing {

class RunTest : public ::testing::Test {
 protected:
  RunTest() { make_run_folder(dir_); }

  void write(const std::string& name, const std::string& contents) { std::ofstream(dir_ / name) << contents; }
  std::string at(const std::string& name) const { return (dir_ / name).string(); }
  RunConfig config(const std::vector<std::string>& overrides = {}) const {
    return parse_run_config(run_file_text(dir_), "RUN.toml", overrides);
  }
  // key="dir_/file"
  std::string set(const std::string& key, const std::string& file) const { return key + "=\"" + at(file) + "\""; }

  const test::ScratchDir folder_;
  const std::filesystem::path dir_ = folder_.path();
};

}  // namespace temper::train::testing
