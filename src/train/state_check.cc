#include "train/state_check.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <limits>

#include "train/host_copy.h"

namespace temper::train {
namespace {

using layers::Parameter;

constexpr const char *kFirst = "first moment of ", *kSecond = "second moment of ";

// Of what this rank owns; it may be nothing.
bool is_checked(const Parameter& p) { return p.num_owned() > 0 && is_float(p.owned_value()); }

std::vector<int64_t> index_of(const Shape& shape, int64_t element) {
  std::vector<int64_t> index(shape.rank());
  for (int d = shape.rank() - 1; d >= 0; --d) index[d] = element % shape[d], element /= shape[d];
  return index;
}

// An element of what this rank owns of a parameter, named as in the whole tensor.
BadValue bad_element(const Parameter& p, const char* prefix, const View& owned, int64_t element, std::string finding) {
  BadValue bad;
  bad.finding = std::move(finding), bad.tensor = prefix + p.name;
  bad.index = index_of(p.whole_shape(), p.whole_index(p.owned_begin() + element));
  bad.value = float_at(owned, element);
  return bad;
}

std::optional<BadValue> check_loss_weights(const data::LoaderStep& data) {
  for (int64_t m = 0; m < std::ssize(data.micro_batches); ++m) {
    const auto& weights = data.micro_batches[m].weights;
    for (int64_t t = 0; t < std::ssize(weights); ++t) {
      if (std::isfinite(weights[t]) && weights[t] >= 0) continue;
      BadValue bad;
      bad.finding = "is not a weight", bad.tensor = "loss weights", bad.index = {m, t}, bad.value = weights[t];
      bad.place = token_place(data, m, t);
      return bad;
    }
  }
  return std::nullopt;
}

std::optional<BadValue> check_finite(const Parameter& p, const char* prefix, const View& owned) {
  for (int64_t i = 0; i < owned.size(); ++i)
    if (!std::isfinite(float_at(owned, i))) return bad_element(p, prefix, owned, i, "is not finite");
  return std::nullopt;
}

struct Largest {
  int64_t element = 0;
  double value = 0, rms_of_rest = 0;
  double times() const { return rms_of_rest > 0 ? std::abs(value) / rms_of_rest : 0; }
};
Largest largest_of(const View& view) {
  Largest out;
  double sum = 0;
  for (int64_t i = 0; i < view.size(); ++i) {
    const double value = float_at(view, i);
    if (std::abs(value) <= std::abs(out.value)) {
      sum += value * value;
      continue;
    }
    sum += out.value * out.value;
    out.element = i, out.value = value;
  }
  if (view.size() > 1) out.rms_of_rest = std::sqrt(sum / static_cast<double>(view.size() - 1));
  return out;
}

std::optional<BadValue> check_outlier(const Parameter& p, const View& value) {
  const Largest largest = largest_of(value);
  if (largest.times() <= kOutlier) return std::nullopt;
  return bad_element(p, "", value, largest.element,
                     fmt::format("is {:.3g} times the root mean square of the other elements", largest.times()));
}

// Of two memories that should agree, the one that stands out from its tensor is the damaged one; without such a sign it
// stays open which.
std::optional<BadValue> check_rounding(const Parameter& p, const View& value, const View& master) {
  for (int64_t i = 0; i < value.size(); ++i) {
    const auto kept = static_cast<float>(float_at(master, i));
    const uint16_t bits = value.data<bf16>()[i].bits, want = bf16(kept).bits;
    const auto rounded = static_cast<double>(static_cast<float>(bf16(kept)));
    if (bits == want) continue;
    // Hardware rounding makes denormal numbers 0.
    constexpr double kDenormal = std::numeric_limits<float>::min();
    if (std::abs(kept) <= kDenormal && std::abs(float_at(value, i)) <= kDenormal) continue;
    const bool value_is_larger = std::abs(float_at(value, i)) > std::abs(rounded);
    const bool one_bit = std::popcount(static_cast<unsigned>(bits ^ want)) == 1;
    const std::string which =
        one_bit ? fmt::format(": bit {} of 16 differs", std::countr_zero(static_cast<unsigned>(bits ^ want))) : "";
    if (value_is_larger) {
      return bad_element(p, "", value, i, fmt::format("and its master {:.6g} disagree{}", kept, which));
    }
    return bad_element(p, "master of ", master, i,
                       fmt::format("and its value {:.6g} disagree{}", float_at(value, i), which));
  }
  return std::nullopt;
}

std::optional<BadValue> check_moments(const Parameter& p, const View& m, const View& v, const StateLimits& limits) {
  const double b1 = limits.adamw.beta1, b2 = limits.adamw.beta2;
  const bool bounded = b1 * b1 < b2 && b2 < 1;
  const double most_ratio = bounded ? (1 - b1) / std::sqrt((1 - b2) * (1 - b1 * b1 / b2)) : 0;
  constexpr double kSlack = 1.01;            // rounding of f32
  constexpr double kSmallestMoment = 1e-18;  // below it the second moment leaves the range of f32
  const double most_v = limits.max_grad_norm * limits.max_grad_norm * kSlack;
  for (int64_t i = 0; i < v.size(); ++i) {
    const double first = float_at(m, i), second = float_at(v, i);
    if (second < 0) return bad_element(p, kSecond, v, i, "is negative");
    if (limits.max_grad_norm > 0 && second > most_v)
      return bad_element(p, kSecond, v, i,
                         fmt::format("is above {:.3g}, the square of the largest clipped gradient", most_v));
    const double most_m = kSlack * most_ratio * std::sqrt(second) + kSmallestMoment;
    if (bounded && std::abs(first) > most_m)
      return bad_element(p, kFirst, m, i,
                         fmt::format("is above {:.3g}, the most that its second moment {:.3g} allows", most_m, second));
  }
  return std::nullopt;
}

std::optional<BadValue> check_parameter(const layers::Ctx& ctx, const Parameter& p, const StateLimits& limits) {
  if (!is_checked(p)) return std::nullopt;
  const HostCopy value(ctx, p.owned_value());
  if (auto bad = check_finite(p, "", value.view())) return bad;
  if (p.master.defined() && p.master.raw() != p.owned_value().raw()) {
    const HostCopy master(ctx, p.master);
    if (auto bad = check_finite(p, "master of ", master.view())) return bad;
    if (value.view().dtype == DType::kBF16)
      if (auto bad = check_rounding(p, value.view(), master.view())) return bad;
  }
  if (!p.m.defined()) return std::nullopt;
  const HostCopy m(ctx, p.m), v(ctx, p.v);
  if (auto bad = check_finite(p, kFirst, m.view())) return bad;
  if (auto bad = check_finite(p, kSecond, v.view())) return bad;
  return check_moments(p, m.view(), v.view(), limits);
}

}  // namespace

std::optional<BadValue> check_state(const layers::Ctx& ctx, const model::Model& model, const data::LoaderStep& data,
                                    const StateLimits& limits) {
  if (auto bad = check_loss_weights(data)) return bad;
  for (const Parameter* p : model.parameters())
    if (auto bad = check_parameter(ctx, *p, limits)) return bad;
  // Last, because an outlier alone is no proof.
  for (const Parameter* p : model.parameters())
    if (is_checked(*p))
      if (auto bad = check_outlier(*p, HostCopy(ctx, p->owned_value()).view())) return bad;
  return std::nullopt;
}

}  // namespace temper::train
