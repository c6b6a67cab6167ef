// The op table: one function pointer per entry of ops.def. A backend fills it in; layers call it and know nothing else.
//
//   ctx.ops.rmsnorm_forward(ctx.stream, y_TD, rstd_T, x_TD, w_D, eps);
//
// Every op is enqueued on the stream and returns; operands must stay valid until the stream has passed it. Ops are
// deterministic: equal operands give equal bits. Shapes and dtypes are the caller's duty and are CHECKed.
#pragma once

#include <string_view>

#include "backend/device.h"
#include "tensor/view.h"

namespace temper::backend {

// Operand roles, so that a wrapped table knows what is read and what is written. They are Views in every respect.
struct In : View {
  In() = default;
  In(const View& view) : View(view) {}  // NOLINT(google-explicit-constructor): a View is meant to pass as an operand
};
struct Out : View {
  Out() = default;
  Out(const View& view) : View(view) {}  // NOLINT(google-explicit-constructor)
};
struct InOut : View {
  InOut() = default;
  InOut(const View& view) : View(view) {}  // NOLINT(google-explicit-constructor)
};

// What each query of an attention call sees (architecture page 5.4). Rows of c_JH and k_CH are named by index ranges,
// so the same op serves packed training rows and a decoding cache.
struct KeyRanges {
  View key_begin_T, key_end_T;        // i32: window keys are rows [begin, end) of c_JH; their order is irrelevant
  View entry_begin_T, entry_count_T;  // i32: visible entries are rows [begin, begin + count) of k_CH; undefined = none
  View selected_TA;                   // i32: chosen entries relative to entry_begin, ascending, -1 = unused slot;
                                      // undefined = all visible entries
  double num_pairs = 0;               // query-key pairs per head, for cost only
};

// Rows that make each compressed entry (architecture page 5.2).
struct CompressRanges {
  View row_C;        // i32: row of z and g that holds the first token of the entry's window
  View prev_row_C;   // i32: the same for the previous window of the document, -1 = none; read only when overlapping
  int64_t rate = 0;  // tokens per window (m)
};

enum class OpKind : uint8_t { kBase, kFused };

struct OpTable {
#define TEMPER_EXPAND(...) __VA_ARGS__
#define TEMPER_OP(name, kind, flops, params) void (*name)(Stream*, TEMPER_EXPAND params) = nullptr;
#include "backend/ops.def"
#undef TEMPER_OP
};

enum class OpId : int {
#define TEMPER_OP(name, kind, flops, params) name,
#include "backend/ops.def"
#undef TEMPER_OP
  kCount
};

inline constexpr std::string_view kOpNames[] = {
#define TEMPER_OP(name, kind, flops, params) #name,
#include "backend/ops.def"
#undef TEMPER_OP
};

// Floating-point operations of one call, by the formula in ops.def.
namespace op_flops {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define TEMPER_OP(name, kind, flops, params) \
  inline double name(TEMPER_EXPAND params) { return flops; }
#include "backend/ops.def"
#undef TEMPER_OP
#pragma GCC diagnostic pop
}  // namespace op_flops

struct Backend {
  std::string name;
  DeviceTable device;
  OpTable ops;
};

}  // namespace temper::backend
