// Host memory for copies of tensors; their views stay valid as long as it lives.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

#include "tensor/view.h"

namespace temper::verify {

class Storage {
 public:
  // Contiguous, of this shape, zero.
  View zeros(DType dtype, Shape shape);
  // A contiguous copy in f64; of integers as they are.
  View copy(const View& view);

 private:
  std::deque<std::vector<std::byte>> blocks_;
};

}  // namespace temper::verify
