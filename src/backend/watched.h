// A backend that hands every call to another one and shows its operands to somebody, before and after.
#pragma once

#include <span>

#include "backend/wrapped.h"

namespace temper::backend {

struct OpCall {
  OpId id;
  std::span<const Operand> operands;
};

// The stream has passed everything before the call in before(), and the op too in after(): memory may be read, and
// written by who injects faults.
class OpWatcher {
 public:
  virtual ~OpWatcher() = default;
  virtual void before(const OpCall& call) = 0;
  virtual void after(const OpCall& call) = 0;
};

struct WatchingHook : WrappedStream {
  template <OpId kId, class... Args>
  void call(const Args&... args);
  OpWatcher* watcher;
};

class WatchedBackend : public WrappedBackend<WatchingHook> {
 public:
  // Runs on a stream of inner's. All three must outlive this.
  WatchedBackend(const Backend& inner, Stream* stream, OpWatcher& watcher);
};

}  // namespace temper::backend
