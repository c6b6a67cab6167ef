#include "backend/device.h"

namespace temper::backend {

Arena::Arena(const DeviceTable& device, Book& book) : device_(device) {
  for (int k = 0; k < kNumTensorKinds; ++k) {
    const auto kind = static_cast<TensorKind>(k);
    const int64_t num_bytes = book.region_bytes(kind);
    if (num_bytes == 0) continue;
    blocks_.push_back({device_.alloc(num_bytes), num_bytes});
    allocated_bytes_ += num_bytes;
    book.grant(kind, blocks_.back().base);
  }
}

Arena::~Arena() {
  for (const auto& block : blocks_) device_.free(block.base, block.num_bytes);
}

}  // namespace temper::backend
