// XXH3, 128 bits: finds damage, does not resist an attacker.
#pragma once

#include <fmt/format.h>
#include <xxhash.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace temper::checkpoint {

class StateHash {
 public:
  StateHash() : state_(XXH3_createState(), &XXH3_freeState) { XXH3_128bits_reset(state_.get()); }

  void add(const void* data, int64_t num_bytes) {
    if (num_bytes > 0) XXH3_128bits_update(state_.get(), data, static_cast<size_t>(num_bytes));
  }

  // Of all bytes so far: 32 hexadecimal digits, the upper 64 bits first.
  std::string text() const {
    const XXH128_hash_t value = XXH3_128bits_digest(state_.get());
    return fmt::format("{:016x}{:016x}", value.high64, value.low64);
  }

  static std::string of(std::string_view bytes) {
    StateHash hash;
    hash.add(bytes.data(), static_cast<int64_t>(bytes.size()));
    return hash.text();
  }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

}  // namespace temper::checkpoint
