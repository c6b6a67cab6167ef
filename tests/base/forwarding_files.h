// The system's disk, for tests that change one thing about it.
#pragma once

#include "base/files.h"

namespace temper::test {

class ForwardingFiles : public Files {
 public:
  std::unique_ptr<OutputFile> create(const Path& path) override { return disk_.create(path); }
  std::unique_ptr<OutputFile> append(const Path& path, int64_t keep) override { return disk_.append(path, keep); }
  std::unique_ptr<InputFile> open_read(const Path& path) override { return disk_.open_read(path); }
  void rename(const Path& from, const Path& to) override { disk_.rename(from, to); }
  void make_directories(const Path& path) override { disk_.make_directories(path); }
  void remove_all(const Path& path) override { disk_.remove_all(path); }
  void sync_directory(const Path& path) override { disk_.sync_directory(path); }
  std::vector<std::string> list(const Path& path) override { return disk_.list(path); }
  bool exists(const Path& path) override { return disk_.exists(path); }

 private:
  Files& disk_ = system_files();
};

}  // namespace temper::test
