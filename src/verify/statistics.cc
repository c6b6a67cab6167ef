#include "verify/statistics.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/thread.h"

namespace temper::verify {
namespace {

using checkpoint::EncodedTensor;
using checkpoint::Encoding;
using checkpoint::FileDType;
using checkpoint::StoredTensor;

constexpr int64_t kChunkElements = 1 << 18;
constexpr double kZeroScale = 0x1p-127, kSmallestScale = 0x1p-100, kLargestScale = 0x1p60;

Statistics measure(const float* values, int64_t count, int64_t first_index) {
  Statistics out;
  out.count = count;
  double min = out.min, max = out.max, sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double value = values[i];
    if (!std::isfinite(value)) {
      ++(std::isnan(value) ? out.num_nan : out.num_infinite);
      if (out.first_bad < 0) out.first_bad = first_index + i;
      continue;
    }
    out.num_zero += value == 0;
    min = std::min(min, value), max = std::max(max, value);
    sum += value * value;
  }
  out.min = min, out.max = max, out.sum_squares = sum;
  return out;
}

double scale_value(const StoredTensor& scale, int64_t i) {
  if (scale.dtype == FileDType::kF8E8M0) {
    const int code = std::to_integer<int>(scale.data[i]);
    return code == 255 ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, code - 127);
  }
  float value = 0;
  std::memcpy(&value, scale.data + i * static_cast<int64_t>(sizeof value), sizeof value);
  return value;
}

}  // namespace

double Statistics::rms() const {
  const int64_t finite = count - num_bad();
  return finite > 0 ? std::sqrt(sum_squares / static_cast<double>(finite)) : 0;
}

void Statistics::add(const Statistics& other) {
  count += other.count, num_zero += other.num_zero, num_nan += other.num_nan, num_infinite += other.num_infinite;
  if (first_bad < 0) first_bad = other.first_bad;
  min = std::min(min, other.min), max = std::max(max, other.max);
  sum_squares += other.sum_squares;
}

Statistics measure_rows(const EncodedTensor& tensor, int64_t begin, int64_t end) {
  const int64_t columns = tensor.num_columns();
  const int64_t chunk_rows = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, columns));
  const int64_t num_chunks = (end - begin + chunk_rows - 1) / chunk_rows;
  std::vector<Statistics> parts(static_cast<size_t>(num_chunks));
  parallel_for(num_chunks, 1, [&](int64_t first, int64_t last, int) {
    std::vector<float> values(static_cast<size_t>(std::min(chunk_rows, end - begin) * columns));
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t row = begin + chunk * chunk_rows, stop = std::min(row + chunk_rows, end);
      checkpoint::decode_rows(tensor, row, stop, values.data(), FileDType::kF32);
      parts[static_cast<size_t>(chunk)] = measure(values.data(), (stop - row) * columns, row * columns);
    }
  });
  Statistics out;
  for (const Statistics& part : parts) out.add(part);
  return out;
}

ScaleStatistics measure_scales(const StoredTensor& scale) {
  ScaleStatistics out;
  out.count = scale.size();
  for (int64_t i = 0; i < out.count; ++i) {
    const double value = scale_value(scale, i);
    const bool is_nan = !std::isfinite(value), is_zero = value <= kZeroScale;
    out.num_nan += is_nan, out.num_zero += is_zero;
    if (is_nan || is_zero) {
      if (out.first_bad < 0) out.first_bad = i;
      continue;
    }
    out.num_extreme += value < kSmallestScale || value > kLargestScale;
    out.min = out.min == 0 ? value : std::min(out.min, value), out.max = std::max(out.max, value);
  }
  return out;
}

uint64_t hash_rows(const EncodedTensor& tensor, int64_t begin, int64_t end) {
  const auto rows_of = [](const StoredTensor& stored, int64_t first, int64_t last, uint64_t seed) {
    const int64_t row_bytes =
        stored.shape.empty() ? stored.num_bytes() : stored.shape.back() * checkpoint::file_dtype_bytes(stored.dtype);
    return XXH3_64bits_withSeed(stored.data + first * row_bytes, static_cast<size_t>((last - first) * row_bytes), seed);
  };
  const uint64_t hash = rows_of(*tensor.weight, begin, end, 0);
  if (!tensor.scale) return hash;
  const int64_t block = tensor.encoding == Encoding::kFp8 ? checkpoint::kFp8Block : 1;
  return rows_of(*tensor.scale, begin / block, (end + block - 1) / block, hash);
}

}  // namespace temper::verify
