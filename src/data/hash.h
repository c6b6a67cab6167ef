// FNV-1a, 64 bits: a fixed hash for held-out splits and for telling whether data have changed. Not for hostile keys.
// Source: Fowler, Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm".
#pragma once

#include <cstdint>
#include <string_view>

namespace temper::data {

class Fnv {
 public:
  void add_byte(uint8_t byte) { value_ = (value_ ^ byte) * 0x100000001B3u; }
  void add(uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) add_byte(static_cast<uint8_t>(number >> shift));
  }
  void add(std::string_view bytes) {
    for (const char byte : bytes) add_byte(static_cast<uint8_t>(byte));
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xCBF29CE484222325u;
};

inline uint64_t fnv(std::string_view bytes) {
  Fnv hash;
  hash.add(bytes);
  return hash.value();
}

}  // namespace temper::data
