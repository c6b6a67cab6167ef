// What the fuzz targets share. A target hands the bytes that libFuzzer makes up to one reader: nothing but an Error may
// leave the reader, and what it accepts must hold what its header promises (CHECK).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"

namespace temper::fuzz {

// Whether `read` returns; false where it refuses with an Error. Any other exception ends the program.
template <class Read>
bool accepts(Read&& read) {
  try {
    read();
    return true;
  } catch (const Error&) {
    return false;
  }
}

inline std::string_view as_text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Cuts the head of `text` off, up to the first `separator` or the end; the separator goes.
inline std::string_view take_until(std::string_view& text, char separator) {
  const size_t end = text.find(separator);
  const std::string_view head = text.substr(0, end);
  text.remove_prefix(end == text.npos ? text.size() : end + 1);
  return head;
}

}  // namespace temper::fuzz
