// The one exception type. Thrown early, caught in three places only: app/main.cc, app/as_rank.cc (of many ranks, which
// must hear of it) and train/supervisor.
//
// A message says what was asked, what was found (numbers, units) and what to do. Never catch-and-log elsewhere.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string>
#include <utility>

namespace temper {

enum class ErrorCode {
  kInvalidArgument,  // the user's request cannot be carried out as written
  kNotFound,         // a file, tensor or key that was asked for is not there
  kCorrupt,          // a file is not what its format promises
  kUnsupported,      // valid, but this build or backend cannot do it
  kOutOfMemory,      // the plan needs more memory than there is
  kBudget,           // a limit that the user set would be exceeded
  kIo,               // the operating system refused a read or write
  kDevice,           // an accelerator or its library failed
  kPeer,             // another rank failed or is stuck
};

const char* error_code_name(ErrorCode code);

// Process exit code of an error: 2 the user's to mend, 3 a machine or peer failed.
int exit_code(ErrorCode code);

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

// Throws Error with a message formatted by fmt.
template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace temper
