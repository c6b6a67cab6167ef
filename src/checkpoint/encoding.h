// Quantised tensors: a weight of small codes and its partner of scales (architecture page 10.3 to 10.6).
//
//   plain  F64, F32, F16, BF16, I64, I32 and no scale
//   FP8    weight F8_E4M3 [out, in], scale [ceil(out/128), ceil(in/128)]:  w_ij = e4m3(code_ij) * S[i div 128, j div
//   128] FP4    weight I8 or U8 [out, in/2], scale [out, in/32]:                w_ij = e2m1(code_ij) * S[i, j div 32]
//          byte j of a row holds column 2j in its low nibble and column 2j+1 in its high nibble
//   scale  F8_E8M0 (2^(byte-127)) or F32
//
// What a tensor is follows from its own dtype and shape and those of its scale, never from a directory's name or
// configuration: releases mix all three.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/safetensors.h"

namespace temper::checkpoint {

inline constexpr int64_t kFp8Block = 128;  // rows and columns that share a scale
inline constexpr int64_t kFp4Block = 32;   // columns of one row that share a scale

enum class Encoding : uint8_t { kPlain, kFp8, kFp4 };

// A stored tensor as numbers. Rows are all dimensions but the last; a vector or a scalar is one row.
struct EncodedTensor {
  const StoredTensor* weight = nullptr;
  const StoredTensor* scale = nullptr;  // nullptr when plain
  Encoding encoding = Encoding::kPlain;
  std::vector<int64_t> shape;  // of the elements: FP4 has twice the stored columns

  int64_t num_columns() const { return shape.empty() ? 1 : shape.back(); }
  int64_t num_rows() const { return num_columns() == 0 ? 0 : size() / num_columns(); }
  int64_t size() const;                                                                         // elements
  int64_t num_bytes() const { return weight->num_bytes() + (scale ? scale->num_bytes() : 0); }  // stored
  std::string to_string() const;  // "FP4 [64, 128]", "BF16 [3, 4]"
};

// What weight and scale (nullptr: it has none) are together. Returns nothing and fills tensor, or returns what was
// found and what was expected, naming both.
std::string detect_encoding(const StoredTensor& weight, const StoredTensor* scale, EncodedTensor& tensor);

// The same; throws kCorrupt.
EncodedTensor encoded_tensor(const StoredTensor& weight, const StoredTensor* scale);

// Shapes as stored of a matrix of elements [out, in]. FP4 needs in to be a multiple of 32.
std::vector<int64_t> stored_shape(Encoding encoding, const std::vector<int64_t>& shape);
std::vector<int64_t> scale_shape(Encoding encoding, const std::vector<int64_t>& shape);

// Rows [row_begin, row_end) as F64, F32, F16 or BF16 (integers as I64 or I32), row-major, into to, which is aligned for
// its elements. The product of code and scale is taken in f32: exact for scales that are powers of two, rounded to
// nearest even for others; then narrowed to nearest even, which loses nothing in BF16 for powers of two. NaN codes and
// scales give NaN: see find_non_finite. Reads and writes nothing else, so that threads may share a tensor.
void decode_rows(const EncodedTensor& tensor, int64_t row_begin, int64_t row_end, void* to, FileDType to_dtype);

// Elements of rows [row_begin, row_end) that are not finite: by their code, by their scale, or as plain numbers.
struct NonFinite {
  int64_t count = 0;
  int64_t first = -1;  // its index in the whole tensor, row-major
};
NonFinite find_non_finite(const EncodedTensor& tensor, int64_t row_begin, int64_t row_end);

// Quantises rows of num_columns elements, row-major. A stripe may be a part of a tensor if it begins at a multiple of
// 128 rows (FP8). Return false, the output undefined, if an element is not finite.
//
// FP8: codes [num_rows, num_columns], scales [ceil(num_rows/128), ceil(num_columns/128)]; amax of each block.
//   scale_dtype F8_E8M0:  S = 2^ceil(log2(amax/448)), the logarithm by the bits of the f32 product amax * (1/448)
//   scale_dtype F32:      S = amax/448
//   code = e4m3(w/S), nearest even, clamped to +-448. S is at least 2^-126.
// FP4: codes [num_rows, num_columns/2], scales [num_rows, num_columns/32], the same number in both scale dtypes.
//   S = 2^ceil(log2(max(amax, 6*2^-126)/6)), code = e2m1(w/S), nearest even, clamped to +-6.
// Decoding what was encoded and encoding it again gives the same numbers.
[[nodiscard]] bool encode_fp8(const float* from, int64_t num_rows, int64_t num_columns, FileDType scale_dtype,
                              std::byte* codes, std::byte* scales);
[[nodiscard]] bool encode_fp4(const float* from, int64_t num_rows, int64_t num_columns, std::byte* codes,
                              std::byte* scales, FileDType scale_dtype = FileDType::kF8E8M0);

}  // namespace temper::checkpoint
