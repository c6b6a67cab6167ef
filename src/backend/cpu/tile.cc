#include "backend/cpu/tile.h"

#include <memory>
#include <new>

#include "base/check.h"

namespace temper::backend {
namespace {

class ScratchBlock {
 public:
  float* grow(int64_t num_floats) {
    if (num_floats > capacity_) {
      block_.reset();
      block_.reset(static_cast<float*>(::operator new(num_floats * sizeof(float), kAlignment)));
      capacity_ = num_floats;
    }
    return block_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* block) const { ::operator delete(block, kAlignment); }
  };
  std::unique_ptr<float, Free> block_;
  int64_t capacity_ = 0;
};

}  // namespace

float* call_scratch(int64_t num_floats) {
  static thread_local ScratchBlock block;
  return block.grow(num_floats);
}

float* part_scratch(int64_t num_floats) {
  static thread_local ScratchBlock block;
  return block.grow(num_floats);
}

}  // namespace temper::backend
