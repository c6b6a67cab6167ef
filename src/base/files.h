// The file operations that must survive a crash, behind a small interface, so that tests can refuse any of them and
// drop what was not synced (tests/base/simulated_disk.h).
//
// What survives a crash: bytes of a file once sync() of it has returned, names in a directory (files made, renamed,
// removed) once sync_directory() of it has returned; everything else may or may not. Every failure is an Error with the
// path and the system's reason: kNotFound where something to be read is not there, else kIo. Any thread may use Files;
// one file belongs to one thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace temper {

// A file that grows at its end. Closed by the destructor; bytes that were not synced may be lost in a crash.
class OutputFile {
 public:
  virtual ~OutputFile() = default;
  // All bytes, or an Error after which any number of them may stand at the end of the file.
  virtual void write(const void* data, int64_t num_bytes) = 0;
  virtual void sync() = 0;
  // Cuts the file back to its first num_bytes; the next write goes there.
  virtual void truncate(int64_t num_bytes) = 0;
  virtual int64_t size() const = 0;
  // After sync(): the system may forget the bytes, so that who reads them back reads the disk. A wish.
  virtual void release_cache() {}
};

class InputFile {
 public:
  virtual ~InputFile() = default;
  // Exactly num_bytes; kCorrupt if the file ends before.
  virtual void read(void* to, int64_t num_bytes, int64_t offset) const = 0;
  virtual int64_t size() const = 0;
};

class Files {
 public:
  using Path = std::filesystem::path;
  virtual ~Files() = default;

  virtual std::unique_ptr<OutputFile> create(const Path& path) = 0;  // empty, in place of one that is there
  // To write after the first keep_bytes of a file, which is made if it is not there. A longer file is cut back; a
  // shorter one stays as it is: size() says where the next byte goes. A link is refused.
  virtual std::unique_ptr<OutputFile> append(const Path& path, int64_t keep_bytes) = 0;
  virtual std::unique_ptr<InputFile> open_read(const Path& path) = 0;  // regular files only
  // Within one file system; in one step for every reader. A file that is called `to` is replaced; a directory is not.
  virtual void rename(const Path& from, const Path& to) = 0;
  virtual void make_directories(const Path& path) = 0;          // with its parents; nothing to do if it is there
  virtual void remove_all(const Path& path) = 0;                // with all below; links are removed, never followed
  virtual void sync_directory(const Path& path) = 0;            // the names in it; an empty path is "."
  virtual std::vector<std::string> list(const Path& path) = 0;  // names in a directory, sorted
  virtual bool exists(const Path& path) = 0;
};

// The operating system's.
Files& system_files();

}  // namespace temper
