// The memory that all ranks of a node see, and what stands where in it.
//
//   head       the verdict: why this world has failed
//   board      per rank: what it is doing
//   heaps      per rank, address space that becomes memory when it is touched: messages under way from the bottom,
//              the groups that it leads from the top
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/doing.h"

namespace temper::comm {

// A pointer to num_bytes of zeros, shared by whoever maps the same block; unmapped with the last owner.
using SharedMemory = std::shared_ptr<char>;

// A new anonymous file of memory, or that of another process by its path, mapped whole. Throw kOutOfMemory or kIo.
struct MemoryFile {
  SharedMemory memory;
  std::string path;  // under /proc, for other processes of the node while this one holds `memory`
};
MemoryFile create_memory(int64_t num_bytes);
SharedMemory open_memory(const std::string& path, int64_t num_bytes);

// Written once by the first rank that finds a failure; the others repeat it.
struct Verdict {
  static constexpr size_t kMaxBytes = 16 * 1024;
  std::atomic<uint32_t> claimed, ready;
  char text[kMaxBytes];
};

// A Doing that others read while it is being written: words under a version that is odd during a write.
class BoardSlot {
 public:
  void write(const Doing& doing);  // by its rank only
  Doing read() const;              // whole, or torn if its writer died in the middle

 private:
  static constexpr size_t kWords = (sizeof(Doing) + 7) / 8;
  std::atomic<uint32_t> version_;
  std::array<std::atomic<uint64_t>, kWords> words_;
};

class Block {
 public:
  static constexpr int64_t kHeapBytes = int64_t{32} << 30;

  static int64_t num_bytes(int64_t num_ranks);
  Block(SharedMemory memory, int64_t num_ranks) : memory_(std::move(memory)), num_ranks_(num_ranks) {}

  int64_t num_ranks() const { return num_ranks_; }
  char* at(int64_t offset) const { return memory_.get() + offset; }
  Verdict& verdict() const { return *reinterpret_cast<Verdict*>(at(0)); }
  BoardSlot& board(int64_t rank) const;
  static int64_t heap_begin(int64_t num_ranks, int64_t rank);

 private:
  SharedMemory memory_;
  int64_t num_ranks_;
};

}  // namespace temper::comm
