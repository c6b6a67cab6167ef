// A backend that hands every call to another one and keeps its time, count and FLOPs by op.
//
// It is itself an op table and a device table, so the model and the trainer run on it unchanged. Each op is followed by
// a stream_sync: the times are true, and work that the inner backend would have overlapped is not.
#pragma once

#include <array>

#include "backend/wrapped.h"

namespace temper::backend {

struct OpTime {
  int64_t num_calls = 0;
  double seconds = 0;
  double flops = 0;  // by the formulas of ops.def
};

struct TimingHook : WrappedStream {
  template <OpId kId, class... Args>
  void call(const Args&... args);
  std::array<OpTime, static_cast<size_t>(OpId::kCount)> times;
};

class TimedBackend : public WrappedBackend<TimingHook> {
 public:
  explicit TimedBackend(const Backend& inner);  // must outlive this

  const OpTime& time(OpId id) const { return hook_.times[static_cast<int>(id)]; }
  void reset() { hook_.times = {}; }
};

}  // namespace temper::backend
