// A backend that hands every call to another one and keeps its time, count and FLOPs by op.
//
// It is itself an op table and a device table, so the model and the trainer run on it unchanged. Each op is followed by
// a stream_sync: the times are true, and work that the inner backend would have overlapped is not.
#pragma once

#include <array>

#include "backend/ops.h"

namespace temper::backend {

struct OpTime {
  int64_t num_calls = 0;
  double seconds = 0;
  double flops = 0;  // by the formulas of ops.def
};

class TimedBackend {
 public:
  // inner must outlive this.
  explicit TimedBackend(const Backend& inner);
  TimedBackend(const TimedBackend&) = delete;
  TimedBackend& operator=(const TimedBackend&) = delete;
  ~TimedBackend();

  const Backend& backend() const { return backend_; }
  // The one stream that the wrapped ops and device accept; stream_create of the wrapped device is absent.
  Stream* stream() { return reinterpret_cast<Stream*>(&state_); }

  const OpTime& time(OpId id) const { return state_.times[static_cast<int>(id)]; }
  void reset() { state_.times = {}; }

  // What stands behind a wrapped Stream*.
  struct State {
    const Backend* inner;
    Stream* stream;
    std::array<OpTime, static_cast<size_t>(OpId::kCount)> times;
  };

 private:
  State state_;
  Backend backend_;
};

}  // namespace temper::backend
