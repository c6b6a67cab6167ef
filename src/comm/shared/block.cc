#include "comm/shared/block.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/error.h"

namespace temper::comm {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kBoardStride = 1024;
static_assert(sizeof(BoardSlot) <= kBoardStride);

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

int64_t board_begin() { return round_up(sizeof(Verdict), kPage); }

// Closes the file with the mapping, or at once.
SharedMemory map(int file, int64_t num_bytes, bool keep_open) {
  const auto size = static_cast<size_t>(num_bytes);
  void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  const int error = errno;
  if (address == MAP_FAILED || !keep_open) close(file);
  if (address == MAP_FAILED) {
    fail(ErrorCode::kOutOfMemory, "cannot map {} GiB of address space for the ranks of this machine: {}",
         num_bytes >> 30, std::strerror(error));
  }
  madvise(address, size, MADV_DONTDUMP);
  return SharedMemory(static_cast<char*>(address), [=](char* base) {
    munmap(base, size);
    if (keep_open) close(file);
  });
}

}  // namespace

MemoryFile create_memory(int64_t num_bytes) {
  const int file = memfd_create("temper ranks", MFD_CLOEXEC);
  if (file < 0) fail(ErrorCode::kIo, "cannot create memory for the ranks of this machine: {}", std::strerror(errno));
  if (ftruncate(file, num_bytes) != 0) {
    const int error = errno;
    close(file);
    fail(ErrorCode::kOutOfMemory, "cannot reserve memory for the ranks of this machine: {}", std::strerror(error));
  }
  return {.memory = map(file, num_bytes, true), .path = fmt::format("/proc/{}/fd/{}", getpid(), file)};
}

SharedMemory open_memory(const std::string& path, int64_t num_bytes) {
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0)
    fail(ErrorCode::kIo, "cannot open the memory of this machine's ranks, {}: {}", path, std::strerror(errno));
  return map(file, num_bytes, false);
}

void BoardSlot::write(const Doing& doing) {
  std::array<uint64_t, kWords> words{};
  std::memcpy(words.data(), &doing, sizeof doing);
  const uint32_t version = version_.load(std::memory_order_relaxed);
  version_.store(version + 1, std::memory_order_relaxed);
  for (size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_release);
  version_.store(version + 2, std::memory_order_release);
}

Doing BoardSlot::read() const {
  std::array<uint64_t, kWords> words{};
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const uint32_t before = version_.load(std::memory_order_acquire);
    for (size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_acquire);
    if (before % 2 == 0 && version_.load(std::memory_order_acquire) == before) break;
  }
  Doing doing;
  std::memcpy(static_cast<void*>(&doing), words.data(), sizeof doing);
  return doing;
}

int64_t Block::num_bytes(int64_t num_ranks) { return heap_begin(num_ranks, num_ranks); }

BoardSlot& Block::board(int64_t rank) const {
  CHECK(0 <= rank && rank < num_ranks_, rank, num_ranks_);
  return *reinterpret_cast<BoardSlot*>(at(board_begin() + rank * kBoardStride));
}

int64_t Block::heap_begin(int64_t num_ranks, int64_t rank) {
  return board_begin() + round_up(num_ranks * kBoardStride, kPage) + rank * kHeapBytes;
}

}  // namespace temper::comm
