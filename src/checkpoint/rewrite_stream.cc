#include "checkpoint/rewrite_stream.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "base/check.h"
#include "base/error.h"

namespace temper::checkpoint {
namespace {

constexpr int64_t kChunkElements = 1 << 20, kChunkBytes = 4 << 20;

class Hasher {
 public:
  Hasher() : state_(XXH3_createState(), &XXH3_freeState) { XXH3_64bits_reset(state_.get()); }
  void add(const void* data, int64_t num_bytes) {
    XXH3_64bits_update(state_.get(), data, static_cast<size_t>(num_bytes));
  }
  uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

int64_t num_rows_of(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) count *= shape[i];
  return count;
}

int64_t row_bytes(const TensorInfo& tensor) {
  return tensor.num_bytes() / std::max<int64_t>(num_rows_of(tensor.shape), 1);
}

// Rows of the source by stripes that its encoding and the target's allow to convert alone.
struct Stripes {
  int64_t num_rows, num_columns, step;

  explicit Stripes(const RewritePiece& piece)
      : num_rows(piece.row_end - piece.row_begin), num_columns(piece.source.num_columns()), step(1) {
    const bool is_fp8 = piece.source.encoding == Encoding::kFp8 || piece.encoding == Encoding::kFp8;
    if (piece.source.encoding == Encoding::kPlain && piece.encoding == Encoding::kPlain) {  // any stretch of elements
      num_rows *= num_columns;
      num_columns = 1;
    }
    step = std::max<int64_t>(kChunkElements / std::max<int64_t>(num_columns, 1), 1);
    if (is_fp8) step = (step + kFp8Block - 1) / kFp8Block * kFp8Block;
  }
};

// The first row of scales that belongs to rows of the weight from row on.
int64_t scale_row(Encoding encoding, int64_t row) {
  return encoding == Encoding::kFp8 ? (row + kFp8Block - 1) / kFp8Block : row;
}

// A piece whose numbers change their form.
class Conversion {
 public:
  Conversion(const RewritePiece& piece, const PieceRanges& ranges, const RewritePlan& plan, RandomFile& target,
             StripeBuffers& buffers)
      : piece_(piece),
        ranges_(ranges),
        dtype_(plan.targets[piece.target].info.dtype),
        target_(target),
        buffers_(buffers),
        stripes_(piece),
        weights_(RandomFile::open(piece.file->path())) {
    if (piece.source.scale) scales_.emplace(RandomFile::open(piece.scale_file->path()));
  }

  PieceHashes run(const std::function<void(int64_t)>& on_bytes) {
    for (int64_t begin = 0; begin < stripes_.num_rows; begin += stripes_.step) {
      const int64_t end = std::min(begin + stripes_.step, stripes_.num_rows);
      read(begin, end);
      if (piece_.encoding == Encoding::kPlain)
        write_plain(begin, end);
      else
        write_quantised(begin, end);
      on_bytes(static_cast<int64_t>(buffers_.weight.size() + buffers_.scale.size()));
    }
    return {source_.value(), piece_.source.scale ? source_scale_.value() : 0, written_.value(),
            piece_.encoding == Encoding::kPlain ? 0 : written_scale_.value()};
  }

 private:
  // The part of a range that rows [begin, end) of num_rows take.
  static ByteRange slice(ByteRange range, int64_t begin, int64_t end, int64_t num_rows) {
    const int64_t row = range.num_bytes / num_rows;
    return {range.begin + begin * row, (end - begin) * row};
  }

  static void fill(std::vector<std::byte>& buffer, const RandomFile& file, ByteRange range, Hasher& hasher) {
    buffer.resize(static_cast<size_t>(range.num_bytes));
    file.read(buffer.data(), range.num_bytes, range.begin);
    hasher.add(buffer.data(), range.num_bytes);
  }

  void flush(const std::vector<std::byte>& buffer, ByteRange range, Hasher& hasher) {
    CHECK(static_cast<int64_t>(buffer.size()) == range.num_bytes, buffer.size(), range.num_bytes);
    target_.write(buffer.data(), range.num_bytes, range.begin);
    hasher.add(buffer.data(), range.num_bytes);
  }

  // Fills stripe_: the rows as a tensor in memory.
  void read(int64_t begin, int64_t end) {
    const Encoding encoding = piece_.source.encoding;
    fill(buffers_.weight, weights_, slice(ranges_.source, begin, end, stripes_.num_rows), source_);
    weight_ = *piece_.source.weight;
    weight_.shape = stored_shape(encoding, {end - begin, stripes_.num_columns});
    weight_.data = buffers_.weight.data();
    stripe_ = {&weight_, nullptr, encoding, {end - begin, stripes_.num_columns}};
    buffers_.scale.clear();
    if (!scales_) return;
    fill(buffers_.scale, *scales_,
         slice(ranges_.source_scale, scale_row(encoding, begin), scale_row(encoding, end),
               scale_row(encoding, stripes_.num_rows)),
         source_scale_);
    scale_ = *piece_.source.scale;
    scale_.shape = scale_shape(encoding, stripe_.shape);
    scale_.data = buffers_.scale.data();
    stripe_.scale = &scale_;
  }

  void write_plain(int64_t begin, int64_t end) {
    buffers_.target.resize(static_cast<size_t>(stripe_.size() * file_dtype_bytes(dtype_)));
    decode_rows(stripe_, 0, end - begin, buffers_.target.data(), dtype_);
    refuse_non_finite(buffers_.target.data(), dtype_, begin);
    flush(buffers_.target, slice(ranges_.target, begin, end, stripes_.num_rows), written_);
  }

  void write_quantised(int64_t begin, int64_t end) {
    const Encoding encoding = piece_.encoding;
    const auto size = static_cast<size_t>(stripe_.size());
    buffers_.values.resize(size);
    decode_rows(stripe_, 0, end - begin, buffers_.values.data(), FileDType::kF32);
    const ByteRange weights = slice(ranges_.target, begin, end, stripes_.num_rows),
                    scales = slice(ranges_.target_scale, scale_row(encoding, begin), scale_row(encoding, end),
                                   scale_row(encoding, stripes_.num_rows));
    buffers_.target.resize(static_cast<size_t>(weights.num_bytes));
    buffers_.target_scale.resize(static_cast<size_t>(scales.num_bytes));
    const bool is_finite = encoding == Encoding::kFp8
                               ? encode_fp8(buffers_.values.data(), end - begin, stripes_.num_columns,
                                            FileDType::kF8E8M0, buffers_.target.data(), buffers_.target_scale.data())
                               : encode_fp4(buffers_.values.data(), end - begin, stripes_.num_columns,
                                            buffers_.target.data(), buffers_.target_scale.data());
    if (!is_finite)
      refuse_non_finite(reinterpret_cast<const std::byte*>(buffers_.values.data()), FileDType::kF32, begin);
    flush(buffers_.target, weights, written_);
    flush(buffers_.target_scale, scales, written_scale_);
  }

  // Decoded numbers of a stripe: infinities and NaN in the source show here, and scales that are too large for the
  // target's dtype.
  void refuse_non_finite(const std::byte* decoded, FileDType dtype, int64_t begin) const {
    StoredTensor numbers;
    numbers.dtype = dtype;
    numbers.shape = stripe_.shape;
    numbers.data = decoded;
    const NonFinite found =
        find_non_finite({&numbers, nullptr, Encoding::kPlain, stripe_.shape}, 0, stripe_.num_rows());
    if (found.count == 0) return;
    const int64_t num_columns = piece_.source.num_columns();
    const int64_t index = piece_.row_begin * num_columns + begin * stripes_.num_columns + found.first;
    fail(ErrorCode::kCorrupt,
         "{}: tensor {} ({}): element [{}, {}] is not a finite number of {}{}; the file is damaged or the model "
         "diverged",
         piece_.file->path().string(), piece_.source.weight->name, piece_.source.to_string(), index / num_columns,
         index % num_columns, file_dtype_name(dtype),
         piece_.source.scale ? fmt::format(": its code or its scale in {} is NaN or too large", scale_.name) : "");
  }

  const RewritePiece& piece_;
  const PieceRanges& ranges_;
  const FileDType dtype_;  // of the target
  RandomFile& target_;
  StripeBuffers& buffers_;
  const Stripes stripes_;
  RandomFile weights_;
  std::optional<RandomFile> scales_;
  StoredTensor weight_, scale_;  // of the stripe
  EncodedTensor stripe_;
  Hasher source_, source_scale_, written_, written_scale_;
};

}  // namespace

std::string hash_text(uint64_t hash) { return fmt::format("{:016x}", hash); }

PieceRanges ranges_of(const RewritePiece& piece, const RewritePlan& plan) {
  const int64_t num_rows = piece.row_end - piece.row_begin;
  const TargetTensor& target = plan.targets[piece.target];
  const int64_t source_row = row_bytes(*piece.source.weight), target_row = row_bytes(target.info);
  PieceRanges ranges;
  ranges.source = {piece.file->offset_of(*piece.source.weight) + piece.row_begin * source_row, num_rows * source_row};
  if (piece.source.scale)
    ranges.source_scale = {piece.scale_file->offset_of(*piece.source.scale), piece.source.scale->num_bytes()};
  ranges.target = {target.offset + piece.target_row * target_row, num_rows * target_row};
  if (piece.encoding != Encoding::kPlain) {
    const TargetTensor& scale = plan.targets[piece.target_scale];
    ranges.target_scale = {scale.offset, scale.info.num_bytes()};
  }
  return ranges;
}

PieceHashes PieceStream::move(const RewritePiece& piece, RandomFile& target) {
  const PieceRanges ranges = ranges_of(piece, plan_);
  if (piece.action != RewriteAction::kCopied) return Conversion(piece, ranges, plan_, target, buffers_).run(on_bytes_);
  PieceHashes hashes;
  hashes.source = hashes.target =
      copy(RandomFile::open(piece.file->path()), ranges.source, target, ranges.target.begin);
  if (piece.source.scale)
    hashes.source_scale = hashes.target_scale =
        copy(RandomFile::open(piece.scale_file->path()), ranges.source_scale, target, ranges.target_scale.begin);
  return hashes;
}

PieceHashes PieceStream::hash_target(const RewritePiece& piece, const RandomFile& target) {
  const PieceRanges ranges = ranges_of(piece, plan_);
  PieceHashes hashes;
  hashes.target = hash(target, ranges.target);
  if (ranges.target_scale.num_bytes > 0) hashes.target_scale = hash(target, ranges.target_scale);
  return hashes;
}

uint64_t PieceStream::hash(const RandomFile& file, ByteRange range) {
  Hasher hasher;
  for (int64_t done = 0; done < range.num_bytes;) {
    const int64_t count = std::min(kChunkBytes, range.num_bytes - done);
    buffers_.weight.resize(static_cast<size_t>(count));
    file.read(buffers_.weight.data(), count, range.begin + done);
    hasher.add(buffers_.weight.data(), count);
    done += count;
  }
  return hasher.value();
}

uint64_t PieceStream::copy(const RandomFile& source, ByteRange from, RandomFile& target, int64_t to) {
  Hasher hasher;
  for (int64_t done = 0; done < from.num_bytes;) {
    const int64_t count = std::min(kChunkBytes, from.num_bytes - done);
    buffers_.weight.resize(static_cast<size_t>(count));
    source.read(buffers_.weight.data(), count, from.begin + done);
    hasher.add(buffers_.weight.data(), count);
    target.write(buffers_.weight.data(), count, to + done);
    done += count;
    on_bytes_(count);
  }
  return hasher.value();
}

}  // namespace temper::checkpoint
