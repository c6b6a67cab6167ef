// A backend around another one: every op goes through a hook, which sees the operands in their types. Timing, watching
// and comparing with the reference are hooks.
//
//   struct CountingHook : WrappedStream {
//     template <OpId kId, class... Args>
//     void call(const Args&... args) { ++num_calls, run<kId>(args...); }
//     int num_calls = 0;
//   };
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/ops.h"

namespace temper::backend {

// What ops.def says of an op.
template <OpId kId>
struct OpTraits;
#define TEMPER_OP(name, kind, flops, params)           \
  template <>                                          \
  struct OpTraits<OpId::name> {                        \
    static constexpr auto kEntry = &OpTable::name;     \
    static constexpr auto kFlops = &op_flops::name;    \
    static constexpr std::string_view kText = #params; \
  };
#include "backend/ops.def"
#undef TEMPER_OP

// The name of the n-th parameter in "(Out y_RD, Out rstd_R, double eps)": y_RD, rstd_R, eps.
constexpr std::string_view parameter_name(std::string_view text, int n) {
  size_t begin = 1;
  for (; n > 0; --n) begin = text.find(',', begin) + 1;
  const std::string_view parameter = text.substr(begin, text.find_first_of(",)", begin) - begin);
  return parameter.substr(parameter.rfind(' ') + 1);
}

enum class Role : uint8_t { kIn, kOut, kInOut };

struct Operand {
  std::string_view name;  // in ops.def, or that of a field of KeyRanges or CompressRanges
  Role role;
  View view;
};

namespace internal {

inline void append(std::vector<Operand>& list, std::string_view name, Role role, const View& view) {
  if (view.defined()) list.push_back({name, role, view});
}
inline void append(std::vector<Operand>& list, std::string_view name, const In& view) {
  append(list, name, Role::kIn, view);
}
inline void append(std::vector<Operand>& list, std::string_view name, const Out& view) {
  append(list, name, Role::kOut, view);
}
inline void append(std::vector<Operand>& list, std::string_view name, const InOut& view) {
  append(list, name, Role::kInOut, view);
}
inline void append(std::vector<Operand>& list, std::string_view, const KeyRanges& ranges) {
  append(list, "key_begin_T", Role::kIn, ranges.key_begin_T);
  append(list, "key_end_T", Role::kIn, ranges.key_end_T);
  append(list, "entry_begin_T", Role::kIn, ranges.entry_begin_T);
  append(list, "entry_count_T", Role::kIn, ranges.entry_count_T);
  append(list, "selected_TA", Role::kIn, ranges.selected_TA);
}
inline void append(std::vector<Operand>& list, std::string_view, const CompressRanges& ranges) {
  append(list, "row_C", Role::kIn, ranges.row_C);
  append(list, "prev_row_C", Role::kIn, ranges.prev_row_C);
}
inline void append(std::vector<Operand>&, std::string_view, double) {}
inline void append(std::vector<Operand>&, std::string_view, int64_t) {}

}  // namespace internal

// The tensors of a call, in the order of ops.def; those that were left out are missing.
template <OpId kId, class... Args>
std::vector<Operand> operands(const Args&... args) {
  std::vector<Operand> list;
  int n = 0;
  (internal::append(list, parameter_name(OpTraits<kId>::kText, n++), args), ...);
  return list;
}

// What stands behind the Stream* of a wrapped backend; hooks derive from it.
struct WrappedStream : Stream {
  const Backend* inner = nullptr;
  Stream* stream = nullptr;

  template <OpId kId, class... Args>
  void run(const Args&... args) {
    (inner->ops.*OpTraits<kId>::kEntry)(stream, args...);
  }
  void sync() { inner->device.stream_sync(stream); }
};

namespace internal {

template <class Hook>
Hook& hook_of(Stream* stream) {
  return static_cast<Hook&>(*stream);
}

template <class Hook, OpId kId, class... Args>
auto wrap(void (*inner)(Stream*, Args...)) -> void (*)(Stream*, Args...) {
  if (!inner) return nullptr;
  return [](Stream* stream, Args... args) { hook_of<Hook>(stream).template call<kId>(args...); };
}

template <class Hook>
OpTable wrap_ops(const OpTable& inner) {
  OpTable table;
#define TEMPER_OP(name, kind, flops, params) table.name = wrap<Hook, OpId::name>(inner.name);
#include "backend/ops.def"
#undef TEMPER_OP
  return table;
}

template <class Hook>
DeviceTable wrap_device(const DeviceTable& inner) {
  DeviceTable table = inner;
  table.stream_create = nullptr;
  table.stream_destroy = nullptr;
  table.comm_stream_create = nullptr;
  table.stream_sync = [](Stream* stream) { hook_of<Hook>(stream).sync(); };
  table.event_record = [](Stream* stream, Event* event) {
    Hook& hook = hook_of<Hook>(stream);
    hook.inner->device.event_record(hook.stream, event);
  };
  table.event_wait = [](Stream* stream, Event* event) {
    Hook& hook = hook_of<Hook>(stream);
    hook.inner->device.event_wait(hook.stream, event);
  };
  table.copy_to_device = [](Stream* stream, View to, const void* from) {
    Hook& hook = hook_of<Hook>(stream);
    hook.inner->device.copy_to_device(hook.stream, to, from);
  };
  table.copy_to_host = [](Stream* stream, void* to, View from) {
    Hook& hook = hook_of<Hook>(stream);
    hook.inner->device.copy_to_host(hook.stream, to, from);
  };
  return table;
}

}  // namespace internal

// The wrapped backend with the one stream that its ops and device accept; what creates streams is absent from its
// device. Events are those of the inner backend. An op that the inner backend lacks is lacking here.
template <class Hook>
class WrappedBackend {
 public:
  // inner must outlive this. what: added to the backend's name. The ops run on a stream of inner's that the caller
  // keeps, or on one of their own.
  WrappedBackend(const Backend& inner, const std::string& what, Stream* stream)
      : owns_stream_(false),
        backend_{inner.name + ", " + what, internal::wrap_device<Hook>(inner.device),
                 internal::wrap_ops<Hook>(inner.ops)} {
    hook_.inner = &inner, hook_.stream = stream;
  }
  WrappedBackend(const Backend& inner, const std::string& what)
      : WrappedBackend(inner, what, inner.device.stream_create()) {
    owns_stream_ = true;
  }
  WrappedBackend(const WrappedBackend&) = delete;
  WrappedBackend& operator=(const WrappedBackend&) = delete;
  ~WrappedBackend() {
    if (owns_stream_) hook_.inner->device.stream_destroy(hook_.stream);
  }

  const Backend& backend() const { return backend_; }
  Stream* stream() { return &hook_; }

 protected:
  Hook hook_{};

 private:
  bool owns_stream_;
  Backend backend_;
};

}  // namespace temper::backend
