#include "backend/cpu/scratch.h"

#include <cstdlib>
#include <memory>

#include "base/check.h"

namespace temper::backend {
namespace {

class Buffer {
 public:
  void* at_least(int64_t num_bytes) {
    if (num_bytes > size_) {
      size_ = (num_bytes + 4095) / 4096 * 4096;
      memory_.reset();
      memory_.reset(std::aligned_alloc(4096, static_cast<size_t>(size_)));
      CHECK(memory_ != nullptr, size_);
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace

void* kernel_scratch(int64_t num_bytes) {
  thread_local Buffer buffer;
  return buffer.at_least(num_bytes);
}

void* shared_scratch(int64_t num_bytes) {
  thread_local Buffer buffer;
  return buffer.at_least(num_bytes);
}

}  // namespace temper::backend
