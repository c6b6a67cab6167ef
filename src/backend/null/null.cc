// A backend that moves no data: the real trainer runs on it, and what it would have cost is counted.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "backend/null_counters.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

NullCounters& counters() {
  static NullCounters instance;
  return instance;
}

double operand_bytes(const In& x) { return static_cast<double>(x.num_bytes()); }
double operand_bytes(const Out& x) { return static_cast<double>(x.num_bytes()); }
double operand_bytes(const InOut& x) { return 2.0 * static_cast<double>(x.num_bytes()); }
double operand_bytes(const KeyRanges& ranges) {
  return static_cast<double>(ranges.key_begin_T.num_bytes() + ranges.key_end_T.num_bytes() +
                             ranges.entry_begin_T.num_bytes() + ranges.entry_count_T.num_bytes() +
                             ranges.selected_TA.num_bytes());
}
double operand_bytes(const CompressRanges& ranges) {
  return static_cast<double>(ranges.row_C.num_bytes() + ranges.prev_row_C.num_bytes());
}
double operand_bytes(double) { return 0; }
double operand_bytes(int64_t) { return 0; }

// The op `id` as a count, made from the type of its cost function.
template <OpId id, auto flops>
struct Counted;
template <OpId id, class... P, double (*flops)(P...)>
struct Counted<id, flops> {
  static void call(Stream*, P... operands) {
    OpCount& count = counters().ops[static_cast<size_t>(id)];
    count.calls += 1;
    count.flops += flops(operands...);
    count.bytes += (operand_bytes(operands) + ...);
  }
};

OpTable counting_ops() {
  OpTable ops;
#define TEMPER_OP(name, kind, flops, params) ops.name = &Counted<OpId::name, &op_flops::name>::call;
#include "backend/ops.def"
#undef TEMPER_OP
  return ops;
}

// As many threads as the CPU has: what is allocated for each of them is part of a plan.
DeviceInfo info() { return {"null: counts, moves nothing", 0, num_threads()}; }
Peak peak(DType) { return {0, "unknown"}; }

// Addresses that no machine maps (bits 48-62 of a user address are zero on every 64-bit system we run on): reading one
// faults at once. Blocks do not overlap, so that views can still be told apart.
void* alloc(int64_t num_bytes) {
  CHECK(num_bytes > 0, num_bytes);
  static std::atomic<uintptr_t> next{uintptr_t{1} << 60};
  NullCounters& count = counters();
  count.allocated_bytes += num_bytes;
  count.peak_allocated_bytes = std::max(count.peak_allocated_bytes, count.allocated_bytes);
  constexpr uintptr_t kPage = 4096;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): an address that nobody may read is the point
  return reinterpret_cast<void*>(next.fetch_add((static_cast<uintptr_t>(num_bytes) + kPage - 1) / kPage * kPage));
}
void free_block(void*, int64_t num_bytes) { counters().allocated_bytes -= num_bytes; }

Stream* stream_create() { return nullptr; }
void stream_destroy(Stream*) {}
void stream_sync(Stream*) {}
Event* event_create() { return nullptr; }
void event_destroy(Event*) {}
void event_record(Stream*, Event*) {}
void event_wait(Stream*, Event*) {}
bool event_query(Event*) { return true; }

void copy_to_device(Stream*, View to, const void*) { counters().copied_bytes += static_cast<double>(to.num_bytes()); }

// What comes back is zero: deterministic, and finite where a caller looks at a loss.
void copy_to_host(Stream*, void* to, View from) {
  counters().copied_bytes += static_cast<double>(from.num_bytes());
  std::memset(to, 0, static_cast<size_t>(from.num_bytes()));
}

}  // namespace

OpCount NullCounters::total() const {
  OpCount sum;
  for (const OpCount& count : ops) sum.calls += count.calls, sum.flops += count.flops, sum.bytes += count.bytes;
  return sum;
}

const NullCounters& null_counters() { return counters(); }

void reset_null_counters() {
  NullCounters fresh;
  fresh.allocated_bytes = fresh.peak_allocated_bytes = counters().allocated_bytes;
  counters() = fresh;
}

const Backend& null_backend() {
  static const Backend backend{
      "null",
      {info, alloc, free_block, stream_create, stream_destroy, stream_sync, stream_create, event_create, event_destroy,
       event_record, event_wait, event_query, copy_to_device, copy_to_host, peak},
      counting_ops()};
  return backend;
}

}  // namespace temper::backend
