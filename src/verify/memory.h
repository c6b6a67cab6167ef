// Memory of this process that no file stands behind: what a check is planned to take and what it took.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace temper::verify {

// Resident bytes without pages of mapped files, now. 0 where the system does not say.
int64_t private_bytes();

// Watches private_bytes() from a thread of its own; peaks shorter than some milliseconds may pass unseen.
class PeakMemory {
 public:
  PeakMemory();
  PeakMemory(const PeakMemory&) = delete;
  PeakMemory& operator=(const PeakMemory&) = delete;
  ~PeakMemory();
  int64_t bytes() const { return peak_; }  // since construction

 private:
  std::atomic<int64_t> peak_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace temper::verify
