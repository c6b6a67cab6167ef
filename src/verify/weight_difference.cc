#include "verify/weight_difference.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/thread.h"

namespace temper::verify {
namespace {

using checkpoint::FileDType;
using checkpoint::Part;

constexpr int64_t kChunkElements = 1 << 18, kExplainRows = 16;
constexpr double kWorthExplaining = 1e-2, kExplained = 1e-6;

// Rows of a stored tensor: a whole one, or an expert's part of a stack.
struct Rows {
  const checkpoint::EncodedTensor* tensor = nullptr;
  int64_t begin = 0, count = 0;

  std::vector<float> read(int64_t first, int64_t last) const {
    std::vector<float> values(static_cast<size_t>((last - first) * tensor->num_columns()));
    checkpoint::decode_rows(*tensor, begin + first, begin + last, values.data(), FileDType::kF32);
    return values;
  }
};

// name: of the part; its rows in whatever tensor of the directory holds them.
Rows find_rows(const Weights& weights, const layers::Parameter& parameter, const checkpoint::TensorName& name) {
  for (const auto* tensor : weights.tensors_of(parameter.name)) {
    const auto& encoded = tensor->encoded;
    if (tensor->name->expert == name.expert && tensor->name->part == name.part)
      return {&encoded, 0, encoded.num_rows()};
    if (tensor->name->part != Part::kWhole) continue;
    const View whole(nullptr, DType::kF32, parameter.shape), part = part_of(whole, name);
    return {&encoded, part.offset / encoded.num_columns(), part.dim(0)};
  }
  return {};
}

struct Sums {
  double difference = 0, squares = 0, largest_difference = 0, largest = 0;
  void add(const Sums& other) {
    difference += other.difference, squares += other.squares;
    largest_difference = std::max(largest_difference, other.largest_difference);
    largest = std::max(largest, other.largest);
  }
};

Sums compare(const std::vector<float>& a, const std::vector<float>& b) {
  Sums out;
  for (size_t i = 0; i < a.size(); ++i) {
    const double apart = std::abs(double{a[i]} - b[i]);
    out.difference += apart * apart, out.squares += double{b[i]} * b[i];
    out.largest_difference = std::max(out.largest_difference, apart);
    out.largest = std::max(out.largest, std::abs(double{b[i]}));
  }
  return out;
}

double relative(const Sums& sums) { return sums.squares > 0 ? std::sqrt(sums.difference / sums.squares) : 0; }

// Neighbouring elements exchanged.
std::vector<float> swap_neighbours(std::vector<float> values) {
  for (size_t i = 0; i + 1 < values.size(); i += 2) std::swap(values[i], values[i + 1]);
  return values;
}

// The rows of b that stand where rows [0, count) of a should, if b's rows were cut into halves and exchanged.
std::string explain(const Rows& a, const Rows& b) {
  const int64_t count = std::min(kExplainRows, a.count), half = a.count / 2, columns = a.tensor->num_columns();
  const std::vector<float> ours = a.read(0, count), theirs = b.read(0, count);
  if (columns % 2 == 0 && relative(compare(swap_neighbours(ours), theirs)) < kExplained)
    return "neighbouring columns are exchanged: the nibbles of packed FP4 are in the wrong order; the even column is "
           "in "
           "the low one (architecture page 10.3)";
  if (a.count % 2 == 0 && count <= half && relative(compare(ours, b.read(half, half + count))) < kExplained)
    return "the two halves of its rows are exchanged";
  double product = 0, squares = 0;
  for (size_t i = 0; i < ours.size(); ++i)
    product += double{ours[i]} * theirs[i], squares += double{theirs[i]} * theirs[i];
  const double factor = squares > 0 ? product / squares : 0;
  std::vector<float> scaled = theirs;
  for (float& value : scaled) value = static_cast<float>(value * factor);
  if (factor != 0 && relative(compare(ours, scaled)) < kExplained)
    return fmt::format("it is {:.6g} times the other: scales are decoded otherwise, or another tensor's", factor);
  return {};
}

WeightDifference compare(const std::string& name, const Rows& a, const Rows& b) {
  const int64_t columns = std::max<int64_t>(1, a.tensor->num_columns());
  const int64_t chunk_rows = std::max<int64_t>(1, kChunkElements / columns);
  const int64_t num_chunks = (a.count + chunk_rows - 1) / chunk_rows;
  std::vector<Sums> parts(static_cast<size_t>(num_chunks));
  parallel_for(num_chunks, 1, [&](int64_t first, int64_t last, int) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * chunk_rows, end = std::min(begin + chunk_rows, a.count);
      parts[static_cast<size_t>(chunk)] = compare(a.read(begin, end), b.read(begin, end));
    }
  });
  Sums sums;
  for (const Sums& part : parts) sums.add(part);
  WeightDifference out{name, relative(sums), sums.largest > 0 ? sums.largest_difference / sums.largest : 0, {}};
  if (out.error > kWorthExplaining) out.cause = explain(a, b);
  return out;
}

}  // namespace

std::vector<WeightDifference> compare_weights(const Weights& a, const Weights& b,
                                              const std::vector<std::string>& parameters) {
  std::vector<WeightDifference> out;
  for (const std::string& name : parameters) {
    const layers::Parameter& parameter = a.parameter(name);
    if (parameter.dtype == DType::kI64) continue;  // tables act on whole rows: the layer's output tells
    for (const auto& part : stored_names(name, parameter.shape, checkpoint::NameStyle::kOfficial)) {
      const Rows ours = find_rows(a, parameter, part.name), theirs = find_rows(b, parameter, part.name);
      CHECK(ours.tensor && theirs.tensor && ours.count == theirs.count, part.stored);
      const WeightDifference difference = compare(part.stored, ours, theirs);
      if (difference.error > 0) out.push_back(difference);
      release(*ours.tensor);
      release(*theirs.tensor);
    }
  }
  std::stable_sort(out.begin(), out.end(), [](auto& x, auto& y) { return x.error > y.error; });
  return out;
}

}  // namespace temper::verify
