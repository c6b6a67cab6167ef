// CHECK(condition, values...): our own invariants. On failure prints the condition and the values, then aborts.
// Never used on what a user or a file can cause: that is an Error.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace temper::internal {

template <class... Args>
std::string join_values(const Args&... args) {
  std::string out;
  ((out += fmt::format(" {}", args)), ...);
  return out;
}

[[noreturn]] inline void check_failed(const char* condition, const char* file, int line, const std::string& values) {
  std::fprintf(stderr, "CHECK failed: %s at %s:%d; values:%s\n", condition, file, line, values.c_str());
  std::abort();
}

}  // namespace temper::internal

#define CHECK(condition, ...)                                                                                         \
  do {                                                                                                                \
    if (!(condition)) [[unlikely]]                                                                                    \
      ::temper::internal::check_failed(#condition, __FILE__, __LINE__, ::temper::internal::join_values(__VA_ARGS__)); \
  } while (false)
