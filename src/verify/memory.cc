#include "verify/memory.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>

namespace temper::verify {

int64_t private_bytes() {
  std::ifstream status("/proc/self/status");
  constexpr std::string_view kKey = "RssAnon:";
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(kKey)) return std::strtoll(line.c_str() + kKey.size(), nullptr, 10) * 1024;
  return 0;
}

PeakMemory::PeakMemory()
    : peak_(private_bytes()), thread_([this] {
        while (!stop_) {
          peak_ = std::max(peak_.load(), private_bytes());
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
      }) {}

PeakMemory::~PeakMemory() {
  stop_ = true;
  thread_.join();
}

}  // namespace temper::verify
