// A disk in memory behind the interface of base/files.h, for tests of what must survive: any operation can be refused,
// and a crash keeps or drops whatever was not synced, as a seed says.
//
// A file has bytes that programs see and bytes that are durable; a directory has names that programs see and names that
// are durable. sync() and sync_directory() make the one the other. A file's sync that is refused loses what it should
// have made durable for good, as on Linux: programs go on seeing it, a later sync does not save it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "base/files.h"

namespace temper::test {

class SimulatedDisk : public Files {
 public:
  SimulatedDisk();
  ~SimulatedDisk() override;

  // Operations that change the disk or make it durable, since it was made: write, truncate, sync, create, rename, each
  // directory made, each name removed, sync_directory.
  int64_t num_operations() const;

  // Refuses operation number n (the first from now on is 1) with a reason of errno.h. A refused write leaves half of
  // its bytes.
  void refuse(int64_t n, int reason);
  // Refuses operation number n and all that follow, as a machine that loses power there, until crash().
  void lose_power_at(int64_t n);
  // Every read of this file fails with EIO.
  void refuse_reading(const Path& path);
  // Writes that would make all files together longer fail with ENOSPC, after the bytes that fit; negative: no limit.
  void set_capacity(int64_t num_bytes);
  int64_t used_bytes() const;

  // The machine stops and starts again: durable bytes and names stay, of the others a part: none (seed 0), all (seed
  // 1), or for each change, by the seed, none, all, or a torn part of the written bytes. Files that were open are dead.
  void crash(uint64_t seed);

  // A file as programs see it; put also makes it durable.
  std::string get(const Path& path) const;
  void put(const Path& path, const std::string& bytes);

  std::unique_ptr<OutputFile> create(const Path& path) override;
  std::unique_ptr<OutputFile> append(const Path& path, int64_t keep_bytes) override;
  std::unique_ptr<InputFile> open_read(const Path& path) override;
  void rename(const Path& from, const Path& to) override;
  void make_directories(const Path& path) override;
  void remove_all(const Path& path) override;
  void sync_directory(const Path& path) override;
  std::vector<std::string> list(const Path& path) override;
  bool exists(const Path& path) override;

 private:
  struct Node;
  class Output;
  class Input;
  using NodePtr = std::shared_ptr<Node>;

  NodePtr find(const Path& path) const;  // nullptr if there is none
  Node& parent_of(const Path& path, const char* action) const;
  NodePtr open_file(const Path& path);
  void operate(const char* action, const Path& path);  // counts, and refuses as asked
  void write(Node& node, const Path& path, const char* data, int64_t num_bytes);
  void remove_below(Node& parent, const std::string& name, const Path& path);
  void crash_below(Node& node, std::mt19937_64& random, uint64_t seed);

  mutable std::mutex mutex_;
  NodePtr root_;
  std::vector<std::string> unreadable_;
  int64_t num_operations_ = 0, refused_operation_ = 0, power_ends_at_ = 0, capacity_ = -1;
  int refuse_reason_ = 0;
  int64_t num_crashes_ = 0;
};

}  // namespace temper::test
