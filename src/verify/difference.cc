#include "verify/difference.h"

#include <cmath>
#include <limits>

namespace temper::verify {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Calls body(value) for every element in row-major order.
template <class T, class Body>
void for_each(const View& view, const Body& body) {
  if (view.size() == 0) return;
  const T* data = view.data<T>();
  const int last = view.rank() - 1;
  const int64_t count = last < 0 ? 1 : view.dim(last), stride = last < 0 ? 1 : view.strides[last];
  std::array<int64_t, Shape::kMaxRank> index{};
  while (true) {
    int64_t offset = 0;
    for (int d = 0; d < last; ++d) offset += index[d] * view.strides[d];
    for (int64_t i = 0; i < count; ++i) body(static_cast<double>(data[offset + i * stride]));
    int d = last - 1;
    while (d >= 0 && ++index[d] == view.dim(d)) index[d--] = 0;
    if (d < 0) return;
  }
}

// Squared distance of two values.
double distance(double got, double want) {
  if (std::isfinite(got) && std::isfinite(want)) return (got - want) * (got - want);
  return std::isfinite(got) == std::isfinite(want) ? 0 : kInfinity;
}

double ratio(double part, double whole) { return part == 0 ? 0 : whole == 0 ? kInfinity : std::sqrt(part / whole); }

double square(double value) { return std::isfinite(value) ? value * value : 0; }

}  // namespace

std::vector<double> to_doubles(const View& view) {
  std::vector<double> out;
  out.reserve(static_cast<size_t>(view.size()));
  const auto append = [&](double value) { out.push_back(value); };
  switch (view.dtype) {
    case DType::kF64:
      for_each<double>(view, append);
      break;
    case DType::kF32:
      for_each<float>(view, append);
      break;
    case DType::kBF16:
      for_each<bf16>(view, append);
      break;
    case DType::kI32:
      for_each<int32_t>(view, append);
      break;
    case DType::kI64:
      for_each<int64_t>(view, append);
      break;
    case DType::kNone:
      break;
  }
  return out;
}

Difference compare_rows(const View& got, const View& want) {
  CHECK(got.shape == want.shape, got.to_string(), want.to_string());
  Difference out;
  const int64_t rows = got.dim(0);
  double difference = 0, got_squares = 0, want_squares = 0, product = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const auto a = to_doubles(got.rows(row, row + 1)), b = to_doubles(want.rows(row, row + 1));
    double row_difference = 0, row_squares = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      row_difference += distance(a[i], b[i]), row_squares += square(b[i]);
      got_squares += square(a[i]);
      if (std::isfinite(a[i]) && std::isfinite(b[i])) product += a[i] * b[i];
      out.num_non_finite += !std::isfinite(a[i]);
    }
    const double error = ratio(row_difference, row_squares);
    if (out.worst_row < 0 || error > out.worst_error) out.worst_error = error, out.worst_row = row;
    difference += row_difference, want_squares += row_squares;
  }
  out.error = ratio(difference, want_squares);
  if (got_squares > 0 || want_squares > 0)
    out.cosine = product / std::sqrt(std::max(got_squares * want_squares, std::numeric_limits<double>::min()));
  return out;
}

ElementError worst_element(const View& got, const View& want, int64_t num_rows) {
  CHECK(got.shape == want.shape && num_rows <= got.dim(0), got.to_string(), want.to_string(), num_rows);
  ElementError out;
  if (num_rows == 0 || got.size() == 0) return out;
  const auto a = to_doubles(got.first(num_rows)), b = to_doubles(want.first(num_rows));
  double squares = 0;
  for (const double value : b) squares += square(value);
  const double rms = std::sqrt(squares / static_cast<double>(b.size()));
  const size_t row_size = b.size() / static_cast<size_t>(num_rows);
  for (size_t i = 0; i < b.size(); ++i) {
    const double apart = std::sqrt(distance(a[i], b[i]));
    if (apart == 0) continue;
    const double error = std::isfinite(apart) ? apart / (std::abs(b[i]) + rms) : kInfinity;
    if (error > out.error) out.error = error, out.row = static_cast<int64_t>(i / row_size);
  }
  return out;
}

}  // namespace temper::verify
