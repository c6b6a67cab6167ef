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

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  constexpr int64_t kMaxBytes = int64_t{1} << 32;
  const MappedFile file(path);
  if (file.size() > kMaxBytes)
    fail(ErrorCode::kInvalidArgument, "{} has {} bytes; such a file has at most {}", path.string(), file.size(),
         kMaxBytes);
  return {reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())};
}

void write_file_atomically(const std::filesystem::path& path, std::string_view contents, Files& files) {
  AtomicFileWriter writer(path, files);
  writer.write(contents.data(), static_cast<int64_t>(contents.size()));
  writer.commit();
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
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

AtomicFileWriter::AtomicFileWriter(std::filesystem::path path, Files& files)
    : files_(files), path_(std::move(path)), temporary_(path_) {
  temporary_ += ".tmp";
  file_ = files_.create(temporary_);
}

AtomicFileWriter::~AtomicFileWriter() {
  if (!file_) return;
  file_.reset();
  try {
    files_.remove_all(temporary_);
  } catch (const Error&) {  // the exception on its way says more than a failure to clean up
  }
}

void AtomicFileWriter::write(const void* data, int64_t num_bytes) { file_->write(data, num_bytes); }

void AtomicFileWriter::commit() {
  file_->sync();
  files_.rename(temporary_, path_);
  file_.reset();
  files_.sync_directory(path_.parent_path());
}

}  // namespace temper
