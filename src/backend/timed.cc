#include "backend/timed.h"

#include "base/clock.h"

namespace temper::backend {
namespace {

TimedBackend::State& state_of(Stream* stream) { return *reinterpret_cast<TimedBackend::State*>(stream); }

// One wrapper per entry of ops.def. kEntry is the entry's place in OpTable, kFlops its cost function.
template <auto kEntry, OpId kId, auto kFlops, class... Args>
void timed_op(Stream* stream, Args... args) {
  TimedBackend::State& state = state_of(stream);
  const double start = now_seconds();
  (state.inner->ops.*kEntry)(state.stream, args...);
  state.inner->device.stream_sync(state.stream);
  OpTime& time = state.times[static_cast<int>(kId)];
  time.seconds += now_seconds() - start;
  time.num_calls += 1;
  time.flops += kFlops(args...);
}

template <auto kEntry, OpId kId, auto kFlops, class... Args>
auto wrap(void (*inner)(Stream*, Args...)) -> void (*)(Stream*, Args...) {
  return inner ? &timed_op<kEntry, kId, kFlops, Args...> : nullptr;
}

OpTable wrap_ops(const OpTable& inner) {
  OpTable table;
#define TEMPER_OP(name, kind, flops, params) table.name = wrap<&OpTable::name, OpId::name, &op_flops::name>(inner.name);
#include "backend/ops.def"
#undef TEMPER_OP
  return table;
}

DeviceTable wrap_device(const DeviceTable& inner) {
  DeviceTable table = inner;
  table.stream_create = nullptr;
  table.stream_destroy = nullptr;
  table.stream_sync = [](Stream* stream) { state_of(stream).inner->device.stream_sync(state_of(stream).stream); };
  table.copy_to_device = [](Stream* stream, View to, const void* from) {
    state_of(stream).inner->device.copy_to_device(state_of(stream).stream, to, from);
  };
  table.copy_to_host = [](Stream* stream, void* to, View from) {
    state_of(stream).inner->device.copy_to_host(state_of(stream).stream, to, from);
  };
  return table;
}

}  // namespace

TimedBackend::TimedBackend(const Backend& inner)
    : state_{&inner, inner.device.stream_create(), {}},
      backend_{inner.name + ", timed", wrap_device(inner.device), wrap_ops(inner.ops)} {}

TimedBackend::~TimedBackend() { state_.inner->device.stream_destroy(state_.stream); }

}  // namespace temper::backend
