#include "layers/rotary.h"

#include <algorithm>
#include <cmath>

namespace temper::layers {

std::vector<double> rotary_frequencies(const RotarySpec& spec) {
  const int64_t P = spec.dims / 2;
  std::vector<double> frequencies(P);
  for (int64_t k = 0; k < P; ++k) frequencies[k] = std::pow(spec.theta, -2.0 * k / spec.dims);
  if (!spec.yarn) return frequencies;

  // Index of the pair that turns `rotations` times over the original context.
  const auto correction_dim = [&](double rotations) {
    return spec.dims * std::log(spec.original_positions / (2 * M_PI * rotations)) / (2 * std::log(spec.theta));
  };
  const double low = std::max(std::floor(correction_dim(spec.beta_fast)), 0.0);
  double high = std::min(std::ceil(correction_dim(spec.beta_slow)), static_cast<double>(spec.dims - 1));
  if (high == low) high += 0.001;
  for (int64_t k = 0; k < P; ++k) {
    const double ramp = std::clamp((k - low) / (high - low), 0.0, 1.0);
    frequencies[k] = frequencies[k] / spec.factor * ramp + frequencies[k] * (1 - ramp);
  }
  return frequencies;
}

void RotaryTable::declare(Book& book, int64_t max_positions, DType acc) {
  book.declare(&cos_sin_LP2, TensorKind::kTable, name_, acc, {max_positions, spec_.dims / 2, 2});
}

namespace {

template <class Real>
std::vector<Real> angles_table(const std::vector<double>& frequencies, int64_t max_positions) {
  std::vector<Real> table;
  table.reserve(max_positions * frequencies.size() * 2);
  for (int64_t position = 0; position < max_positions; ++position) {
    for (const double frequency : frequencies) {
      const Real angle = static_cast<Real>(position) * static_cast<Real>(frequency);
      table.push_back(static_cast<Real>(std::cos(static_cast<double>(angle))));
      table.push_back(static_cast<Real>(std::sin(static_cast<double>(angle))));
    }
  }
  return table;
}

}  // namespace

void RotaryTable::prepare(Ctx& ctx) const {
  const auto frequencies = rotary_frequencies(spec_);
  const int64_t L = cos_sin_LP2.dim(0);
  if (ctx.acc == DType::kF64) {
    ctx.device.copy_to_device(ctx.stream, cos_sin_LP2, angles_table<double>(frequencies, L).data());
  } else {
    ctx.device.copy_to_device(ctx.stream, cos_sin_LP2, angles_table<float>(frequencies, L).data());
  }
}

}  // namespace temper::layers
