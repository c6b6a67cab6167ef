#include "verify/checked.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "verify/mistakes.h"
#include "verify/ties.h"

namespace temper::verify {
namespace {

using backend::InOut;
using backend::OpTraits;

// Allowed worst_element() errors. f32 outputs are sums of up to some ten thousand terms; bf16 ones are rounded to 2^-8,
// and attention may round its probabilities to bf16 in addition.
constexpr double kAllowedF32 = 5e-5, kAllowedBf16 = 1.0 / 64;

bool is_float(const View& view) {
  return view.dtype == DType::kF64 || view.dtype == DType::kF32 || view.dtype == DType::kBF16;
}

struct Range {
  const char *begin, *end;
};
Range memory_of(const View& view) {
  int64_t last = 0;
  for (int d = 0; d < view.rank(); ++d) last += (view.dim(d) - 1) * view.strides[d];
  const char* begin = static_cast<const char*>(view.raw());
  return {begin, begin + (view.size() == 0 ? 0 : (last + 1) * dtype_bytes(view.dtype))};
}
bool overlap(const View& a, const View& b) {
  if (!a.defined() || !b.defined()) return false;
  const Range x = memory_of(a), y = memory_of(b);
  return x.begin < y.end && y.begin < x.end;
}

// The operands of the reference's call: outputs have memory of their own, inputs are copied where the fast call will
// overwrite them, and where nothing else would make the reference compute in f64.
class Shadows {
 public:
  explicit Shadows(Storage& storage) : storage_(storage) {}

  void see(const Out& view) { outputs_.push_back(view), has_float_ = has_float_ || is_float(view); }
  void see(const InOut& view) { outputs_.push_back(view), has_float_ = has_float_ || is_float(view); }
  template <class T>
  void see(const T&) {}

  Out make(const Out& view) {
    return view.defined() ? storage_.zeros(is_float(view) ? DType::kF64 : view.dtype, view.shape) : View{};
  }
  InOut make(const InOut& view) { return view.defined() ? storage_.copy(view) : View{}; }
  In make(const In& view) {
    const bool overwritten = std::any_of(outputs_.begin(), outputs_.end(), [&](auto& o) { return overlap(o, view); });
    if (view.defined() && (overwritten || (!has_float_ && is_float(view)))) return storage_.copy(view);
    return view;
  }
  template <class T>
  T make(const T& value) {
    return value;
  }

 private:
  Storage& storage_;
  std::vector<View> outputs_;
  bool has_float_ = false;
};

// Compares the outputs of one call.
struct Comparison {
  const CheckingHook& hook;
  OpId op;
  std::string_view text;  // of the op's parameters
  int64_t num_rows;       // rows that the op defines; -1: all
  bool has_bf16 = false;
  OpError worst;
  int parameter = 0;

  template <class T>
  void see_input(const T& value) {
    if constexpr (std::is_base_of_v<View, T>) has_bf16 = has_bf16 || value.dtype == DType::kBF16;
    if constexpr (std::is_same_v<T, In>) {
      for (const layers::Parameter* parameter : hook.parameters)
        if (worst.weight.empty() && overlap(parameter->value, value)) worst.weight = parameter->name;
    }
  }
  template <class T, class S>
  void compare(const T& got, const S& want) {
    const int number = parameter++;
    if constexpr (std::is_same_v<T, Out> || std::is_same_v<T, InOut>) compare_output(number, got, want);
  }
  void compare_output(int number, const View& got, const View& want) {
    if (!got.defined() || got.rank() == 0) return;
    const ElementError found = worst_element(got, want, num_rows < 0 ? got.dim(0) : std::min(num_rows, got.dim(0)));
    const bool wide = has_bf16 && (got.dtype == DType::kBF16 || op == OpId::attention_forward);
    const double allowed = !is_float(got) ? 0 : wide ? kAllowedBf16 : kAllowedF32;
    // The output that fails by most, or else the worst one.
    const auto rank = [](double error, double limit) { return error > limit ? 2 + error : error; };
    if (worst.allowed != -1 && rank(found.error, allowed) < rank(worst.error, worst.allowed)) return;
    worst.error = found.error, worst.allowed = allowed, worst.row = found.row;
    worst.output = backend::parameter_name(text, number);
  }
};

template <OpId kId, class Tuple>
int64_t defined_rows(const Tuple& args) {
  if constexpr (kId == OpId::grouped_matmul) {
    const View& offset = std::get<3>(args);  // rows behind the last expert are left alone
    return offset.template data<int32_t>()[offset.size() - 1];
  }
  return -1;
}

void record(std::vector<OpError>& errors, const OpError& call) {
  const auto at = std::find_if(errors.begin(), errors.end(), [&](auto& e) { return e.op == call.op; });
  if (at == errors.end()) {
    errors.push_back(call);
    errors.back().num_calls = 1;
    return;
  }
  const int64_t num_calls = at->num_calls + 1;
  const bool failed = call.error > call.allowed, worse = call.error > at->error;
  if (failed == (at->error > at->allowed) ? worse : failed) *at = call;
  at->num_calls = num_calls;
}

// The cause of a failed call, if a known mistake makes the same first output of the same operands.
template <class First>
std::string explain(std::vector<Mistake>& mistakes, Storage& storage, const First& got, double allowed) {
  for (const Mistake& mistake : mistakes) {
    const View out = storage.zeros(is_float(got) ? DType::kF64 : got.dtype, got.shape);
    mistake.make(out);
    if (worst_element(got, out, got.dim(0)).error <= allowed) return mistake.text;
  }
  return "";
}

}  // namespace

template <OpId kId, class... Args>
void CheckingHook::call(const Args&... args) {
  Storage storage;
  Shadows shadows(storage);
  (shadows.see(args), ...);
  std::tuple<Args...> shadow(shadows.make(args)...);
  // First the reference, then the fast call: ops may overwrite their inputs.
  std::apply([&](auto&... operand) { (reference->ops.*OpTraits<kId>::kEntry)(nullptr, operand...); }, shadow);
  run<kId>(args...);
  sync();

  const std::tuple<Args...> given(args...);
  Comparison comparison{*this, kId, OpTraits<kId>::kText, defined_rows<kId>(given), false, {}, 0};
  comparison.worst.op = kId, comparison.worst.allowed = -1;
  (comparison.see_input(args), ...);
  std::apply([&](const auto&... want) { (comparison.compare(args, want), ...); }, shadow);
  OpError& worst = comparison.worst;
  if (worst.error > worst.allowed) excuse_ties(OpTag<kId>{}, num_ties, worst, std::get<0>(shadow), args...);
  if (worst.error > worst.allowed) {
    auto mistakes = std::apply(
        [&](const auto&... operand) { return known_mistakes(OpTag<kId>{}, reference->ops, storage, operand...); },
        shadow);
    if constexpr (std::is_base_of_v<View, std::tuple_element_t<0, std::tuple<Args...>>>)
      worst.cause = explain(mistakes, storage, std::get<0>(given), worst.allowed);
  }
  record(errors, worst);
}

CheckedBackend::CheckedBackend(const backend::Backend& fast) : WrappedBackend(fast, "checked") {
  hook_.reference = &backend::cpu_reference();
}

}  // namespace temper::verify
