// Files: read whole or mapped, written whole beside their place, synced, then renamed. All failures are Error with the
// path, the system's reason and, where a length was expected, both lengths.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/files.h"

namespace temper {

std::string read_file(const std::filesystem::path& path);  // at most 4 GiB: a file may be long and hold nothing

// Writes to "<path>.tmp", fsyncs, renames over path and fsyncs the directory: a reader sees the old file or the new
// one.
void write_file_atomically(const std::filesystem::path& path, std::string_view contents, Files& files = system_files());

// A read-only mapping of a whole file; movable.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

// Sequential writer of a large file with the same promise as write_file_atomically: nothing appears at path before
// commit(); without commit() the temporary file is removed.
class AtomicFileWriter {
 public:
  explicit AtomicFileWriter(std::filesystem::path path, Files& files = system_files());
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;
  ~AtomicFileWriter();
  void write(const void* data, int64_t num_bytes);
  void commit();

 private:
  Files& files_;
  std::filesystem::path path_, temporary_;
  std::unique_ptr<OutputFile> file_;  // until commit()
};

}  // namespace temper
