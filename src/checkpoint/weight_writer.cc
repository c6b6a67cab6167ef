#include "checkpoint/weight_writer.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/error.h"
#include "base/thread.h"
#include "checkpoint/convert.h"

namespace temper::checkpoint {
namespace {

constexpr int64_t kChunkElements = 1 << 20, kThreadElements = 1 << 15;

// Calls body(begin, end) for stripes of rows of about kChunkElements elements, whole blocks of 128 rows.
template <class Body>
void for_each_chunk(int64_t num_rows, int64_t num_columns, const Body& body) {
  const int64_t blocks = kChunkElements / std::max<int64_t>(num_columns * kFp8Block, 1);
  const int64_t chunk = std::max<int64_t>(blocks, 1) * kFp8Block;
  for (int64_t begin = 0; begin < num_rows; begin += chunk) body(begin, std::min(begin + chunk, num_rows));
}

// Calls body(begin, end) for parts of the rows, on all threads.
template <class Body>
void for_rows(int64_t num_rows, int64_t num_columns, const Body& body) {
  parallel_for(num_rows, std::max<int64_t>(kThreadElements / std::max<int64_t>(num_columns, 1), 1),
               [&](int64_t begin, int64_t end, int) { body(begin, end); });
}

void copy(SafetensorsWriter& to, const StoredTensor& from) {
  to.write(from.data, from.num_bytes());
  release_pages(from);
}

}  // namespace

void WeightWriter::write_weight(SafetensorsWriter& to, const PlannedWeight& planned) {
  if (is_copied(planned)) return copy(to, *planned.source->weight);
  if (planned.encoding == Encoding::kPlain) return write_plain(to, planned);
  encode(&to, planned);
}

void WeightWriter::write_scale(SafetensorsWriter& to, const PlannedWeight& planned) {
  if (is_copied(planned)) return copy(to, *planned.source->scale);
  if (states_[&planned].scales.empty()) encode(nullptr, planned);
  auto& scales = states_[&planned].scales;
  to.write(scales.data(), static_cast<int64_t>(scales.size()));
  scales = {};
}

// Whether the source's bytes are written.
bool WeightWriter::is_copied(const PlannedWeight& planned) {
  auto& known = states_[&planned].is_copied;
  if (!known) known = planned.is_stored_alike() && (!planned.from.defined() || equals_source(planned));
  return *known;
}

// Whether the source, as it was loaded, is what memory holds, bit for bit.
bool WeightWriter::equals_source(const PlannedWeight& planned) {
  const View rows_RC = as_rows(planned.from);
  const int64_t num_columns = rows_RC.dim(1), row_bytes = num_columns * dtype_bytes(rows_RC.dtype);
  std::atomic<bool> is_equal = true;
  for_each_chunk(rows_RC.dim(0), num_columns, [&](int64_t begin, int64_t end) {
    if (!is_equal) return;
    const std::byte* held = fetch(planned, begin, end);
    made_.resize(static_cast<size_t>((end - begin) * row_bytes));
    for_rows(end - begin, num_columns, [&](int64_t first, int64_t last) {
      std::byte* decoded = made_.data() + first * row_bytes;
      decode_rows(*planned.source, begin + first, begin + last, decoded, file_dtype(rows_RC.dtype));
      if (std::memcmp(decoded, held + first * row_bytes, static_cast<size_t>((last - first) * row_bytes)) != 0)
        is_equal = false;
    });
  });
  return is_equal;
}

void WeightWriter::write_plain(SafetensorsWriter& to, const PlannedWeight& planned) {
  const bool has_values = planned.from.defined();
  const View rows_RC = has_values ? as_rows(planned.from) : View();
  const int64_t num_rows = has_values ? rows_RC.dim(0) : planned.source->num_rows();
  const int64_t num_columns = has_values ? rows_RC.dim(1) : planned.source->num_columns();
  const FileDType dtype = planned.weight.dtype;
  const int64_t row_bytes = num_columns * file_dtype_bytes(dtype);
  for_each_chunk(num_rows, num_columns, [&](int64_t begin, int64_t end) {
    const std::byte* held = has_values ? fetch(planned, begin, end) : nullptr;
    made_.resize(static_cast<size_t>((end - begin) * row_bytes));
    for_rows(end - begin, num_columns, [&](int64_t first, int64_t last) {
      std::byte* made = made_.data() + first * row_bytes;
      if (!has_values) return decode_rows(*planned.source, begin + first, begin + last, made, dtype);
      convert_elements(made, dtype, held + first * num_columns * dtype_bytes(rows_RC.dtype), file_dtype(rows_RC.dtype),
                       (last - first) * num_columns);
    });
    to.write(made_.data(), static_cast<int64_t>(made_.size()));
  });
}

// Keeps the scales, and writes the codes unless to is nullptr.
void WeightWriter::encode(SafetensorsWriter* to, const PlannedWeight& planned) {
  const View& from_RC = planned.from;
  const bool is_fp8 = planned.encoding == Encoding::kFp8;
  const int64_t num_rows = from_RC.dim(0), num_columns = from_RC.dim(1), held_bytes = dtype_bytes(from_RC.dtype);
  const int64_t code_bytes = num_rows == 0 ? 0 : planned.weight.num_bytes() / num_rows;
  const int64_t scale_bytes = planned.scale->shape[1] * file_dtype_bytes(planned.scale->dtype);  // one row of scales
  auto& scales = states_[&planned].scales;
  scales.resize(static_cast<size_t>(planned.scale->num_bytes()));
  for_each_chunk(num_rows, num_columns, [&](int64_t begin, int64_t end) {
    const std::byte* held = fetch(planned, begin, end);
    made_.resize(static_cast<size_t>((end - begin) * code_bytes));
    const int64_t num_blocks = (end - begin + kFp8Block - 1) / kFp8Block;
    parallel_for(num_blocks, 1, [&](int64_t first, int64_t last, int) {
      const int64_t row = first * kFp8Block, count = std::min(last * kFp8Block, end - begin) - row;
      std::vector<float> values(static_cast<size_t>(count * num_columns));
      convert_elements(values.data(), FileDType::kF32, held + row * num_columns * held_bytes, file_dtype(from_RC.dtype),
                       count * num_columns);
      std::byte* codes = made_.data() + row * code_bytes;
      std::byte* scale = scales.data() + (begin + row) / (is_fp8 ? kFp8Block : 1) * scale_bytes;
      const bool is_finite = is_fp8 ? encode_fp8(values.data(), count, num_columns, planned.scale->dtype, codes, scale)
                                    : encode_fp4(values.data(), count, num_columns, codes, scale, planned.scale->dtype);
      if (!is_finite)
        fail(ErrorCode::kInvalidArgument,
             "{} has an element that is not a finite number in rows {} to {}: it cannot be quantised",
             planned.weight.name, begin + row, begin + row + count - 1);
    });
    if (to) to->write(made_.data(), static_cast<int64_t>(made_.size()));
  });
}

// Rows on the host, until the next call.
const std::byte* WeightWriter::fetch(const PlannedWeight& planned, int64_t row_begin, int64_t row_end) {
  const View rows_RC = as_rows(planned.from).rows(row_begin, row_end);
  held_.resize(static_cast<size_t>(rows_RC.num_bytes()));
  weights_.read(*planned.parameter, rows_RC.offset, rows_RC.offset + rows_RC.size(), held_.data());
  return held_.data();
}

}  // namespace temper::checkpoint
