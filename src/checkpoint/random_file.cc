#include "checkpoint/random_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace temper::checkpoint {

RandomFile::RandomFile(std::filesystem::path path, int flags)
    : path_(std::move(path)), descriptor_(::open(path_.c_str(), flags | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) fail_io("open");
}

RandomFile::RandomFile(RandomFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

RandomFile::~RandomFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

RandomFile RandomFile::open(const std::filesystem::path& path) { return {path, O_RDONLY}; }

RandomFile RandomFile::create(const std::filesystem::path& path, int64_t num_bytes) {
  ::unlink(path.c_str());  // what lies there may be a link to elsewhere
  RandomFile file(path, O_RDWR | O_CREAT | O_EXCL);
  if (::ftruncate(file.descriptor_, num_bytes) != 0) file.fail_io("set the size of");
  return file;
}

void RandomFile::fail_io(const char* action) const {
  fail(ErrorCode::kIo, "cannot {} {}: {}", action, path_.string(), std::strerror(errno));
}

void RandomFile::read(void* to, int64_t num_bytes, int64_t offset) const {
  auto* at = static_cast<char*>(to);
  while (num_bytes > 0) {
    const ssize_t done = ::pread(descriptor_, at, static_cast<size_t>(num_bytes), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_io("read");
    if (done == 0)
      fail(ErrorCode::kCorrupt, "{}: the file ends at byte {}, {} more were expected", path_.string(), offset,
           num_bytes);
    at += done, offset += done, num_bytes -= done;
  }
}

void RandomFile::write(const void* from, int64_t num_bytes, int64_t offset) {
  const int64_t begin = offset, count = num_bytes;
  const auto* at = static_cast<const char*>(from);
  while (num_bytes > 0) {
    const ssize_t done = ::pwrite(descriptor_, at, static_cast<size_t>(num_bytes), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_io("write");
    at += done, offset += done, num_bytes -= done;
  }
  constexpr int64_t kLongBytes = 1 << 20;
  if (count < kLongBytes) return;
  // Wishes: what they do not do, sync() does.
  ::sync_file_range(descriptor_, begin, count,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  ::posix_fadvise(descriptor_, begin, count, POSIX_FADV_DONTNEED);
}

void RandomFile::sync() {
  if (::fsync(descriptor_) != 0) fail_io("sync");
}

}  // namespace temper::checkpoint
