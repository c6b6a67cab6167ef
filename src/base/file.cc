#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace temper {
namespace {

[[noreturn]] void fail_io(const char* action, const std::filesystem::path& path) {
  const int reason = errno;
  fail(reason == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot {} {}: {}", action, path.string(),
       std::strerror(reason));
}

void sync_directory(const std::filesystem::path& directory) {
  const int descriptor = ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY);
  if (descriptor < 0) fail_io("open directory", directory);
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())};
}

void write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  AtomicFileWriter writer(path);
  writer.write(contents.data(), static_cast<int64_t>(contents.size()));
  writer.commit();
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_io("open", path);
  struct stat info {};
  if (::fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(descriptor);
    fail(ErrorCode::kIo, "cannot read {}: not a regular file", path.string());
  }
  size_ = info.st_size;
  if (size_ > 0) {
    void* address = ::mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) {
      ::close(descriptor);
      fail_io("map", path);
    }
    data_ = static_cast<const std::byte*>(address);
  }
  ::close(descriptor);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
}

AtomicFileWriter::AtomicFileWriter(std::filesystem::path path) : path_(std::move(path)), temporary_(path_) {
  temporary_ += ".tmp";
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail_io("write", temporary_);
}

AtomicFileWriter::~AtomicFileWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFileWriter::write(const void* data, int64_t num_bytes) {
  const char* at = static_cast<const char*>(data);
  while (num_bytes > 0) {
    const ssize_t done = ::write(descriptor_, at, static_cast<size_t>(num_bytes));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_io("write", temporary_);
    at += done;
    num_bytes -= done;
  }
}

void AtomicFileWriter::commit() {
  if (::fsync(descriptor_) != 0) fail_io("sync", temporary_);
  if (::close(std::exchange(descriptor_, -1)) != 0) fail_io("close", temporary_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_io("rename onto", path_);
  sync_directory(path_.parent_path());
}

}  // namespace temper
