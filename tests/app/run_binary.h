// Runs the built temper program as a user would.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace temper::test {

struct RunResult {
  int exit_code = -1;
  std::string output;  // stdout and stderr together
};

RunResult run_temper(const std::vector<std::string>& arguments);

// A directory of this test's own, empty at the start, removed at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  const std::filesystem::path& path() const { return path_; }
  // Writes a file of this name and gives its path.
  std::string write(const std::string& name, const std::string& contents) const;

 private:
  std::filesystem::path path_;
};

// tests/fixtures/v4/<name>, a directory that transformers wrote.
std::filesystem::path fixture(const std::string& name);

}  // namespace temper::test
