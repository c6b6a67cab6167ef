#include "checkpoint/convert.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace temper::checkpoint {
namespace {

struct Half {
  uint16_t bits;
  explicit Half(float value) : bits(float_to_half(value)) {}
  Half() = default;
  explicit operator float() const { return half_to_float(bits); }
};

bool is_integer(FileDType dtype) { return dtype == FileDType::kI64 || dtype == FileDType::kI32; }
bool is_float(FileDType dtype) {
  return dtype == FileDType::kF64 || dtype == FileDType::kF32 || dtype == FileDType::kF16 || dtype == FileDType::kBF16;
}

template <class To, class From>
To convert(From value) {
  if constexpr (std::is_same_v<To, From>)
    return value;
  else if constexpr (sizeof(To) == 2 || sizeof(From) == 2)  // 16-bit formats convert to and from f32
    return static_cast<To>(static_cast<float>(value));
  else
    return static_cast<To>(value);
}

// memcpy per element: stored data may be unaligned; compilers make plain loads and stores of it.
template <class To, class From>
void convert_all(void* to, const void* from, int64_t count) {
  if constexpr (std::is_same_v<To, From>) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(To));
  } else {
    for (int64_t i = 0; i < count; ++i) {
      From value;
      std::memcpy(&value, static_cast<const std::byte*>(from) + i * static_cast<int64_t>(sizeof(From)), sizeof value);
      const To converted = convert<To>(value);
      std::memcpy(static_cast<std::byte*>(to) + i * static_cast<int64_t>(sizeof(To)), &converted, sizeof converted);
    }
  }
}

// Calls body with a value of the dtype's element type.
template <class Body>
void with_element(FileDType dtype, const Body& body) {
  switch (dtype) {
    case FileDType::kF64:
      return body(double{});
    case FileDType::kF32:
      return body(float{});
    case FileDType::kF16:
      return body(Half{});
    case FileDType::kBF16:
      return body(bf16{});
    case FileDType::kI64:
      return body(int64_t{});
    case FileDType::kI32:
      return body(int32_t{});
    default:
      CHECK(false, file_dtype_name(dtype));
  }
}

}  // namespace

FileDType file_dtype(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return FileDType::kF64;
    case DType::kF32:
      return FileDType::kF32;
    case DType::kBF16:
      return FileDType::kBF16;
    case DType::kI32:
      return FileDType::kI32;
    case DType::kI64:
      return FileDType::kI64;
    case DType::kNone:
      break;
  }
  CHECK(false, dtype_name(dtype));
}

bool is_convertible(FileDType to, FileDType from) {
  return (is_float(to) && is_float(from)) || (is_integer(to) && is_integer(from));
}

void convert_elements(void* to, FileDType to_dtype, const void* from, FileDType from_dtype, int64_t count) {
  CHECK(is_convertible(to_dtype, from_dtype), file_dtype_name(to_dtype), file_dtype_name(from_dtype));
  with_element(to_dtype, [&](auto target) {
    with_element(from_dtype, [&](auto source) { convert_all<decltype(target), decltype(source)>(to, from, count); });
  });
}

View as_rows(const View& view) {
  const int64_t num_columns = view.rank() == 0 ? 1 : view.dim(view.rank() - 1);
  return view.reshape({num_columns == 0 ? 0 : view.size() / num_columns, num_columns});
}

float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, exponent = (half >> 10) & 31u, mantissa = half & 0x3FFu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));  // infinity, NaN
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7C00u);  // 65536 and above
  if (magnitude < 0x38800000u) {  // subnormal: units of 2^-24; adding 0.5 places and rounds them
    const float placed = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(placed) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - (112u << 23);
  return static_cast<uint16_t>(sign | (rounded >> 13));  // a carry out of 65504 gives infinity
}

}  // namespace temper::checkpoint
