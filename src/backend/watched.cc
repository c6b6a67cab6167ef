#include "backend/watched.h"

namespace temper::backend {

template <OpId kId, class... Args>
void WatchingHook::call(const Args&... args) {
  const std::vector<Operand> list = operands<kId>(args...);
  const OpCall call{kId, list};
  sync();
  watcher->before(call);
  run<kId>(args...);
  sync();
  watcher->after(call);
}

WatchedBackend::WatchedBackend(const Backend& inner, Stream* stream, OpWatcher& watcher)
    : WrappedBackend(inner, "watched", stream) {
  hook_.watcher = &watcher;
}

}  // namespace temper::backend
