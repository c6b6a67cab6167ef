#include "backend/timed.h"

#include "base/clock.h"

namespace temper::backend {

template <OpId kId, class... Args>
void TimingHook::call(const Args&... args) {
  const double start = now_seconds();
  run<kId>(args...);
  sync();
  OpTime& time = times[static_cast<int>(kId)];
  time.seconds += now_seconds() - start;
  time.num_calls += 1;
  time.flops += OpTraits<kId>::kFlops(args...);
}

TimedBackend::TimedBackend(const Backend& inner) : WrappedBackend(inner, "timed") {}

}  // namespace temper::backend
