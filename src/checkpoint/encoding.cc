#include "checkpoint/encoding.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/small_floats.h"

namespace temper::checkpoint {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_plain(FileDType dtype) {
  return is_convertible(FileDType::kF32, dtype) || is_convertible(FileDType::kI64, dtype);
}

bool is_packed(FileDType dtype) { return dtype == FileDType::kI8 || dtype == FileDType::kU8; }

// Value by code.
const std::array<float, 256>& e4m3_values() {
  static const std::array<float, 256> kValues = [] {
    std::array<float, 256> values{};
    for (size_t code = 0; code < 256; ++code) values[code] = e4m3_to_float(static_cast<uint8_t>(code));
    return values;
  }();
  return kValues;
}

// The two values of a byte, low nibble first.
using Pair = std::array<float, 2>;
const std::array<Pair, 256>& e2m1_values() {
  static const std::array<Pair, 256> kValues = [] {
    std::array<Pair, 256> values{};
    for (size_t byte = 0; byte < 256; ++byte)
      values[byte] = {e2m1_to_float(static_cast<uint8_t>(byte & 15)), e2m1_to_float(static_cast<uint8_t>(byte >> 4))};
    return values;
  }();
  return kValues;
}

float scale_at(const StoredTensor& scale, int64_t index) {
  if (scale.dtype == FileDType::kF8E8M0) return e8m0_to_float(std::to_integer<uint8_t>(scale.data[index]));
  float value = 0;
  std::memcpy(&value, scale.data + index * static_cast<int64_t>(sizeof value), sizeof value);
  return value;
}

// Calls body(first column, end column, scale, index of the block's codes in weight.data) for each block of a row.
template <class Body>
void for_each_block(const EncodedTensor& tensor, int64_t row, const Body& body) {
  const bool is_fp4 = tensor.encoding == Encoding::kFp4;
  const int64_t width = is_fp4 ? kFp4Block : kFp8Block, num_columns = tensor.num_columns();
  const int64_t num_blocks = ceil_div(num_columns, width), scale_row = is_fp4 ? row : row / kFp8Block;
  for (int64_t block = 0; block < num_blocks; ++block) {
    const int64_t begin = block * width, element = row * num_columns + begin;
    body(begin, std::min(begin + width, num_columns), scale_at(*tensor.scale, scale_row * num_blocks + block),
         is_fp4 ? element / 2 : element);
  }
}

void decode_row(const EncodedTensor& tensor, int64_t row, float* to) {
  const auto* codes = reinterpret_cast<const uint8_t*>(tensor.weight->data);
  const auto& singles = e4m3_values();
  const auto& pairs = e2m1_values();
  for_each_block(tensor, row, [&](int64_t begin, int64_t end, float scale, int64_t at) {
    if (tensor.encoding == Encoding::kFp8) {
      for (int64_t i = 0; i < end - begin; ++i) to[begin + i] = singles[codes[at + i]] * scale;
      return;
    }
    for (int64_t i = 0; i < (end - begin) / 2; ++i) {
      const Pair pair = pairs[codes[at + i]];
      to[begin + 2 * i] = pair[0] * scale;
      to[begin + 2 * i + 1] = pair[1] * scale;
    }
  });
}

// Counts elements whose exponent bits are all ones; the data may be unaligned.
template <class Bits>
NonFinite find_in_plain(const EncodedTensor& tensor, int64_t begin, int64_t end, Bits exponent) {
  const auto is_bad = [&](int64_t i) {
    Bits bits = 0;
    std::memcpy(&bits, tensor.weight->data + i * static_cast<int64_t>(sizeof bits), sizeof bits);
    return (bits & exponent) == exponent;
  };
  NonFinite found;
  for (int64_t i = begin; i < end; ++i) found.count += is_bad(i);
  if (found.count == 0) return found;
  for (found.first = begin; !is_bad(found.first);) ++found.first;
  return found;
}

// 2^ceil(log2(value)) as an e8m0 code, by the bits; at least 2^-126.
uint8_t ceil_power(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint8_t>(std::max(1u, (bits >> 23) + ((bits & 0x7FFFFFu) != 0)));
}

void check_scale_dtype(FileDType dtype) {
  CHECK(dtype == FileDType::kF8E8M0 || dtype == FileDType::kF32, file_dtype_name(dtype));
}

void store_scale(std::byte* scales, int64_t index, FileDType dtype, uint8_t power, float scale) {
  if (dtype == FileDType::kF8E8M0)
    scales[index] = std::byte{power};
  else
    std::memcpy(scales + index * static_cast<int64_t>(sizeof scale), &scale, sizeof scale);
}

// The largest magnitude; infinity if an element is infinite or NaN: as bits, magnitudes order like whole numbers.
float largest_magnitude(const float* from, int64_t num_rows, int64_t num_columns, int64_t stride) {
  uint32_t largest = 0;
  for (int64_t row = 0; row < num_rows; ++row)
    for (int64_t i = 0; i < num_columns; ++i)
      largest = std::max(largest, std::bit_cast<uint32_t>(from[row * stride + i]) & 0x7FFFFFFFu);
  return std::bit_cast<float>(std::min(largest, 0x7F800000u));
}

}  // namespace

int64_t EncodedTensor::size() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, [](int64_t a, int64_t b) { return a * b; });
}

std::string EncodedTensor::to_string() const {
  const std::string_view name = encoding == Encoding::kFp8   ? "FP8"
                                : encoding == Encoding::kFp4 ? "FP4"
                                                             : file_dtype_name(weight->dtype);
  return fmt::format("{} [{}]", name, fmt::join(shape, ", "));
}

std::string detect_encoding(const StoredTensor& weight, const StoredTensor* scale, EncodedTensor& tensor) {
  tensor = {&weight, scale, Encoding::kPlain, weight.shape};
  const std::string found = fmt::format("{} is {}", weight.name, weight.to_string());
  if (is_plain(weight.dtype)) {
    if (!scale) return "";
    return fmt::format("{} and has the scale {} {}; only F8_E4M3 and packed FP4 (I8) weights have scales", found,
                       scale->name, scale->to_string());
  }
  const bool is_fp8 = weight.dtype == FileDType::kF8E4M3;
  if (!is_fp8 && !is_packed(weight.dtype))
    return fmt::format("{}; expected F64, F32, F16, BF16, I64, I32, F8_E4M3 (FP8) or I8 (packed FP4)", found);
  tensor.encoding = is_fp8 ? Encoding::kFp8 : Encoding::kFp4;
  if (weight.shape.size() != 2 || (!is_fp8 && weight.shape[1] > INT64_MAX / 2))
    return fmt::format("{}; a quantised weight has two dimensions", found);
  if (!is_fp8) tensor.shape[1] *= 2;
  if (!is_fp8 && tensor.shape[1] % kFp4Block != 0)
    return fmt::format("{}; packed FP4 has a multiple of 16 columns, one scale for each", found);
  const auto expected = scale_shape(tensor.encoding, tensor.shape);
  const std::string wanted =
      fmt::format("{} needs a scale F8_E8M0 or F32 [{}]", is_fp8 ? "FP8" : "packed FP4", fmt::join(expected, ", "));
  if (!scale) return fmt::format("{} and has no scale; {}", found, wanted);
  const bool is_scale = scale->dtype == FileDType::kF8E8M0 || scale->dtype == FileDType::kF32;
  if (is_scale && scale->shape == expected) return "";
  return fmt::format("{} and its scale {} is {}; {}", found, scale->name, scale->to_string(), wanted);
}

EncodedTensor encoded_tensor(const StoredTensor& weight, const StoredTensor* scale) {
  EncodedTensor tensor;
  if (const std::string problem = detect_encoding(weight, scale, tensor); !problem.empty())
    fail(ErrorCode::kCorrupt, "tensor {}", problem);
  return tensor;
}

std::vector<int64_t> stored_shape(Encoding encoding, const std::vector<int64_t>& shape) {
  if (encoding != Encoding::kFp4) return shape;
  CHECK(shape.size() == 2 && shape[1] % kFp4Block == 0, shape.size());
  return {shape[0], shape[1] / 2};
}

std::vector<int64_t> scale_shape(Encoding encoding, const std::vector<int64_t>& shape) {
  CHECK(encoding != Encoding::kPlain && shape.size() == 2, shape.size());
  if (encoding == Encoding::kFp8) return {ceil_div(shape[0], kFp8Block), ceil_div(shape[1], kFp8Block)};
  CHECK(shape[1] % kFp4Block == 0, shape.size());
  return {shape[0], shape[1] / kFp4Block};
}

void decode_rows(const EncodedTensor& tensor, int64_t row_begin, int64_t row_end, void* to, FileDType to_dtype) {
  const int64_t num_columns = tensor.num_columns();
  CHECK(0 <= row_begin && row_begin <= row_end && row_end <= tensor.num_rows(), row_begin, row_end, tensor.num_rows());
  if (tensor.encoding == Encoding::kPlain) {
    const FileDType from = tensor.weight->dtype;
    convert_elements(to, to_dtype, tensor.weight->data + row_begin * num_columns * file_dtype_bytes(from), from,
                     (row_end - row_begin) * num_columns);
    return;
  }
  const bool is_f32 = to_dtype == FileDType::kF32;
  const int64_t row_bytes = num_columns * file_dtype_bytes(to_dtype);
  std::vector<float> values(static_cast<size_t>(is_f32 ? 0 : num_columns));
  for (int64_t row = row_begin; row < row_end; ++row) {
    std::byte* at = static_cast<std::byte*>(to) + (row - row_begin) * row_bytes;
    decode_row(tensor, row, is_f32 ? reinterpret_cast<float*>(at) : values.data());
    if (!is_f32) convert_elements(at, to_dtype, values.data(), FileDType::kF32, num_columns);
  }
}

NonFinite find_non_finite(const EncodedTensor& tensor, int64_t row_begin, int64_t row_end) {
  const int64_t num_columns = tensor.num_columns(), begin = row_begin * num_columns, end = row_end * num_columns;
  switch (tensor.weight->dtype) {
    case FileDType::kF64:
      return find_in_plain<uint64_t>(tensor, begin, end, 0x7FF0000000000000u);
    case FileDType::kF32:
      return find_in_plain<uint32_t>(tensor, begin, end, 0x7F800000u);
    case FileDType::kBF16:
      return find_in_plain<uint16_t>(tensor, begin, end, 0x7F80u);
    case FileDType::kF16:
      return find_in_plain<uint16_t>(tensor, begin, end, 0x7C00u);
    default:
      break;
  }
  NonFinite found;
  if (tensor.encoding == Encoding::kPlain) return found;  // whole numbers
  const auto* codes = reinterpret_cast<const uint8_t*>(tensor.weight->data);
  const bool is_fp8 = tensor.encoding == Encoding::kFp8;
  for (int64_t row = row_begin; row < row_end; ++row)
    for_each_block(tensor, row, [&](int64_t from, int64_t to, float scale, int64_t at) {
      int64_t count = std::isfinite(scale) ? 0 : to - from, first = 0;
      if (count == 0 && is_fp8) {
        count = std::count_if(codes + at, codes + at + to - from, [](uint8_t code) { return (code & 0x7F) == 0x7F; });
        while (count > 0 && (codes[at + first] & 0x7F) != 0x7F) ++first;
      }
      if (count > 0 && found.count == 0) found.first = row * num_columns + from + first;
      found.count += count;
    });
  return found;
}

bool encode_fp8(const float* from, int64_t num_rows, int64_t num_columns, FileDType scale_dtype, std::byte* codes,
                std::byte* scales) {
  check_scale_dtype(scale_dtype);
  const bool is_power = scale_dtype == FileDType::kF8E8M0;
  int64_t index = 0;
  for (int64_t row = 0; row < num_rows; row += kFp8Block)
    for (int64_t column = 0; column < num_columns; column += kFp8Block, ++index) {
      const int64_t height = std::min(kFp8Block, num_rows - row), width = std::min(kFp8Block, num_columns - column);
      const int64_t corner = row * num_columns + column;
      const float amax = largest_magnitude(from + corner, height, width, num_columns);
      if (!std::isfinite(amax)) return false;
      const uint8_t power = ceil_power(amax * (1.0f / 448.0f));
      const float scale = is_power ? e8m0_to_float(power) : std::max(amax / 448.0f, 0x1p-126f);
      store_scale(scales, index, scale_dtype, power, scale);
      for (int64_t i = 0; i < height; ++i)
        for (int64_t j = 0; j < width; ++j)
          codes[corner + i * num_columns + j] = std::byte{float_to_e4m3(from[corner + i * num_columns + j] / scale)};
    }
  return true;
}

bool encode_fp4(const float* from, int64_t num_rows, int64_t num_columns, std::byte* codes, std::byte* scales,
                FileDType scale_dtype) {
  CHECK(num_columns % kFp4Block == 0, num_columns);
  check_scale_dtype(scale_dtype);
  for (int64_t block = 0; block < num_rows * num_columns / kFp4Block; ++block) {
    const float* values = from + block * kFp4Block;
    const float amax = largest_magnitude(values, 1, kFp4Block, kFp4Block);
    if (!std::isfinite(amax)) return false;
    const uint8_t power = ceil_power(std::max(amax, 6 * 0x1p-126f) * (1.0f / 6.0f));
    const float inverse = e8m0_to_float(static_cast<uint8_t>(254 - power));  // exact
    store_scale(scales, block, scale_dtype, power, e8m0_to_float(power));
    for (int64_t i = 0; i < kFp4Block; i += 2) {
      const int low = float_to_e2m1(values[i] * inverse), high = float_to_e2m1(values[i + 1] * inverse);
      codes[(block * kFp4Block + i) / 2] = std::byte(low | (high << 4));
    }
  }
  return true;
}

}  // namespace temper::checkpoint
