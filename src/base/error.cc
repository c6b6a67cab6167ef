#include "base/error.h"

namespace temper {

const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid argument";
    case ErrorCode::kNotFound:
      return "not found";
    case ErrorCode::kCorrupt:
      return "corrupt file";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kOutOfMemory:
      return "out of memory";
    case ErrorCode::kBudget:
      return "over budget";
    case ErrorCode::kIo:
      return "input/output";
    case ErrorCode::kDevice:
      return "device";
    case ErrorCode::kPeer:
      return "peer";
  }
  return "unknown";
}

int exit_code(ErrorCode code) { return code == ErrorCode::kDevice || code == ErrorCode::kPeer ? 3 : 2; }

}  // namespace temper
