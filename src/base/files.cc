#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_io(const char* action, const fs::path& path, int reason) {
  fail(ErrorCode::kIo, "cannot {} {}: {}", action, path.string(), std::generic_category().message(reason));
}

// As fail_io, for what is to be read.
[[noreturn]] void fail_read(const char* action, const fs::path& path, int reason) {
  fail(reason == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot {} {}: {}", action, path.string(),
       std::generic_category().message(reason));
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const { return value_; }

 private:
  int value_;
};

int64_t size_of(const Descriptor& file, const fs::path& path) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) fail_io("ask the size of", path, errno);
  if (!S_ISREG(info.st_mode)) fail(ErrorCode::kIo, "cannot use {}: not a regular file", path.string());
  return info.st_size;
}

// A new file in the place of one that is there; what a link points to stays untouched.
Descriptor open_new(const fs::path& path) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  int file = ::open(path.c_str(), kFlags, 0644);
  if (file < 0 && errno == EEXIST && ::unlink(path.c_str()) == 0) file = ::open(path.c_str(), kFlags, 0644);
  if (file < 0) fail_io("write", path, errno);
  return Descriptor(file);
}

Descriptor open_to_append(const fs::path& path) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644));
  if (file.get() < 0 && errno == ELOOP)
    fail(ErrorCode::kIo, "cannot write {}: a link; remove it, or give another directory", path.string());
  if (file.get() < 0) fail_io("write", path, errno);
  return file;
}

class SystemOutput : public OutputFile {
 public:
  SystemOutput(const fs::path& path, Descriptor file)
      : path_(path), file_(std::move(file)), size_(size_of(file_, path_)) {}

  void write(const void* data, int64_t num_bytes) override {
    const auto* at = static_cast<const char*>(data);
    while (num_bytes > 0) {
      const ssize_t done = ::pwrite(file_.get(), at, static_cast<size_t>(num_bytes), size_);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail_io("write", path_, errno);
      at += done, size_ += done, num_bytes -= done;
    }
  }

  void sync() override {
    if (::fsync(file_.get()) != 0) fail_io("sync", path_, errno);
  }

  void truncate(int64_t num_bytes) override {
    if (::ftruncate(file_.get(), num_bytes) != 0) fail_io("cut back", path_, errno);
    size_ = num_bytes;
  }

  int64_t size() const override { return size_; }
  void release_cache() override { ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED); }

 private:
  fs::path path_;
  Descriptor file_;
  int64_t size_;
};

class SystemInput : public InputFile {
 public:
  explicit SystemInput(const fs::path& path)
      : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (file_.get() < 0) fail_read("open", path_, errno);
    size_ = size_of(file_, path_);
  }

  void read(void* to, int64_t num_bytes, int64_t offset) const override {
    auto* at = static_cast<char*>(to);
    while (num_bytes > 0) {
      const ssize_t done = ::pread(file_.get(), at, static_cast<size_t>(num_bytes), offset);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail_io("read", path_, errno);
      if (done == 0)
        fail(ErrorCode::kCorrupt, "{}: the file ends at byte {}, {} more were expected", path_.string(), offset,
             num_bytes);
      at += done, offset += done, num_bytes -= done;
    }
  }

  int64_t size() const override { return size_; }

 private:
  fs::path path_;
  Descriptor file_;
  int64_t size_ = 0;
};

class SystemFiles : public Files {
 public:
  std::unique_ptr<OutputFile> create(const Path& path) override {
    return std::make_unique<SystemOutput>(path, open_new(path));
  }

  std::unique_ptr<OutputFile> append(const Path& path, int64_t keep_bytes) override {
    auto file = std::make_unique<SystemOutput>(path, open_to_append(path));
    if (file->size() > keep_bytes) file->truncate(keep_bytes);
    return file;
  }

  std::unique_ptr<InputFile> open_read(const Path& path) override { return std::make_unique<SystemInput>(path); }

  void rename(const Path& from, const Path& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0)
      fail(ErrorCode::kIo, "cannot rename {} to {}: {}", from.string(), to.string(),
           std::generic_category().message(errno));
  }

  void make_directories(const Path& path) override {
    std::error_code error;
    fs::create_directories(path, error);
    if (error) fail_io("create the directory", path, error.value());
  }

  void remove_all(const Path& path) override {
    std::error_code error;
    fs::remove_all(path, error);
    if (error) fail_io("remove", path, error.value());
  }

  void sync_directory(const Path& path) override {
    const Descriptor directory(::open(path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() < 0) fail_io("open the directory", path, errno);
    // EINVAL and EBADF: a file system that has no such operation, because its names are durable at once or never.
    if (::fsync(directory.get()) != 0 && errno != EINVAL && errno != EBADF) fail_io("sync the directory", path, errno);
  }

  std::vector<std::string> list(const Path& path) override {
    std::error_code error;
    std::vector<std::string> names;
    for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error))
      names.push_back(at->path().filename().string());
    if (error) fail_read("list", path, error.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  bool exists(const Path& path) override {
    std::error_code error;
    return fs::exists(fs::symlink_status(path, error));
  }
};

}  // namespace

Files& system_files() {
  static SystemFiles files;
  return files;
}

}  // namespace temper
