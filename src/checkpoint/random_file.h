// A file that several threads read and write at offsets of their own.
#pragma once

#include <cstdint>
#include <filesystem>

namespace temper::checkpoint {

// All failures are Error with the path and the system's reason; closed by the destructor.
class RandomFile {
 public:
  static RandomFile open(const std::filesystem::path& path);  // to read
  // An empty file of num_bytes zeros, to write; its disk space is taken as it is written.
  static RandomFile create(const std::filesystem::path& path, int64_t num_bytes);
  RandomFile(RandomFile&& other) noexcept;
  RandomFile& operator=(RandomFile&&) = delete;
  ~RandomFile();

  // Exactly num_bytes; kCorrupt if the file ends before.
  void read(void* to, int64_t num_bytes, int64_t offset) const;
  // Long stretches go to the disk at once and leave the page cache: a model of many gigabytes does not push everything
  // else out of memory, and recycled pages are cheaper than new ones.
  void write(const void* from, int64_t num_bytes, int64_t offset);
  void sync();

 private:
  RandomFile(std::filesystem::path path, int flags);
  [[noreturn]] void fail_io(const char* action) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace temper::checkpoint
