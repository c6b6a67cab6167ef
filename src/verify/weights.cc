#include "verify/weights.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/thread.h"
#include "checkpoint/convert.h"

namespace temper::verify {
namespace {

using checkpoint::EncodedTensor;
using checkpoint::FileDType;
using checkpoint::Part;
using checkpoint::StoredTensor;

constexpr int64_t kChunkElements = 1 << 22, kThreadElements = 1 << 16;

bool equal(const Shape& shape, const std::vector<int64_t>& dims) {
  bool same = shape.rank() == static_cast<int>(dims.size());
  for (int i = 0; same && i < shape.rank(); ++i) same = shape[i] == dims[static_cast<size_t>(i)];
  return same;
}

// A parameter as rows: all dims but the last.
View as_rows(const View& view) {
  const int64_t columns = view.rank() == 0 ? 1 : view.dim(view.rank() - 1);
  return view.reshape({columns == 0 ? 0 : view.size() / columns, columns});
}

// Decodes rows of a stored tensor into device memory of as many rows.
void upload(layers::Ctx& ctx, const View& to_RC, const EncodedTensor& from, int64_t from_row) {
  const int64_t columns = from.num_columns(), element = dtype_bytes(to_RC.dtype);
  const int64_t chunk_rows = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(columns, 1));
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(chunk_rows, to_RC.dim(0)) * columns * element));
  for (int64_t begin = 0; begin < to_RC.dim(0); begin += chunk_rows) {
    const int64_t end = std::min(begin + chunk_rows, to_RC.dim(0));
    parallel_for(end - begin, std::max<int64_t>(1, kThreadElements / std::max<int64_t>(columns, 1)),
                 [&](int64_t first, int64_t last, int) {
                   checkpoint::decode_rows(from, from_row + begin + first, from_row + begin + last,
                                           buffer.data() + first * columns * element,
                                           checkpoint::file_dtype(to_RC.dtype));
                 });
    ctx.device.copy_to_device(ctx.stream, to_RC.rows(begin, end), buffer.data());
  }
}

void release(const StoredTensor& tensor) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(tensor.data) + static_cast<uintptr_t>(tensor.num_bytes());
  // Pages of a read-only mapping come back from the file when they are touched again: a wish that costs nothing.
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace

void release(const EncodedTensor& tensor) {
  release(*tensor.weight);
  if (tensor.scale) release(*tensor.scale);
}

Weights::Weights(const std::filesystem::path& dir, std::span<layers::Parameter* const> parameters)
    : dir_(dir), tensors_(dir) {
  for (const layers::Parameter* parameter : parameters) parameters_[parameter->name] = parameter;
  for (const auto& item : tensors_.items()) stored_[item.tensor->name] = item.tensor;
  for (const auto& item : tensors_.items()) match(*item.tensor);
  for (const layers::Parameter* parameter : parameters) check_complete(*parameter);
}

void Weights::match(const StoredTensor& stored) {
  const auto misfit = [&](const std::string& message) { misfits_.push_back({stored.name, message}); };
  const auto name = checkpoint::parse_tensor_name(stored.name);
  if (!name) {
    if (const auto weight = checkpoint::weight_of_scale(stored.name))
      return stored_.contains(*weight) ? void() : misfit("a scale without its weight");
    if (checkpoint::is_mtp_copy(stored.name)) return void(++num_skipped_);
  }
  const auto at = name ? parameters_.find(name->parameter) : parameters_.end();
  if (at == parameters_.end()) {
    if (checkpoint::is_mtp_name(stored.name)) return void(++num_skipped_);
    return misfit(fmt::format("unknown; the model of config.json has no such tensor ({})", stored.to_string()));
  }
  const layers::Parameter& parameter = *at->second;
  if (name->part != Part::kWhole && name->expert >= parameter.shape[0])
    return misfit(fmt::format("unknown; the model has {} experts", parameter.shape[0]));

  const StoredTensor* scale = nullptr;
  for (const std::string& candidate : checkpoint::scale_names(stored.name))
    if (const auto found = stored_.find(candidate); found != stored_.end()) scale = found->second;
  Piece piece{{}, &parameter, *name};
  const std::string fault = checkpoint::detect_encoding(stored, scale, piece.tensor);
  auto& pieces = pieces_of_[parameter.name];
  const bool twice = std::any_of(pieces.begin(), pieces.end(), [&](size_t i) {
    return pieces_[i].name.expert == name->expert && pieces_[i].name.part == name->part;
  });
  if (twice) return misfit(fmt::format("given twice: {} has this under another name, too", parameter.name));
  pieces.push_back(pieces_.size());  // a wrong tensor is not also a missing one
  pieces_.push_back(piece);
  if (fault.empty()) num_bytes_ += piece.tensor.num_bytes();
  pieces_.back().is_readable = fault.empty();
  if (!fault.empty()) return misfit(fault);
  const bool is_table = parameter.dtype == DType::kI64;
  const Shape expected = checkpoint::part_of(View(nullptr, parameter.dtype, parameter.shape), *name).shape;
  const FileDType memory = is_table ? FileDType::kI64 : FileDType::kF32;
  const bool is_plain = piece.tensor.encoding == checkpoint::Encoding::kPlain;
  pieces_.back().is_readable = is_plain ? checkpoint::is_convertible(memory, stored.dtype) : !is_table;
  if (!pieces_.back().is_readable)
    return misfit(fmt::format("wrong dtype: {}, expected {}", stored.to_string(),
                              is_table ? "I64 or I32" : "F64, F32, F16, BF16, FP8 or FP4"));
  if (!equal(expected, piece.tensor.shape))
    misfit(fmt::format("wrong shape: {}, expected {}", piece.tensor.to_string(), expected.to_string()));
}

void Weights::check_complete(const layers::Parameter& parameter) {
  const auto at = pieces_of_.find(parameter.name);
  const auto has = [&](const checkpoint::TensorName& name) {
    return std::any_of(at->second.begin(), at->second.end(), [&](size_t i) {
      return pieces_[i].name.expert == name.expert && pieces_[i].name.part == name.part;
    });
  };
  if (at == pieces_of_.end())
    return void(misfits_.push_back({parameter.name, fmt::format("missing; expected {}", parameter.shape.to_string())}));
  const bool whole = has({parameter.name});
  if (whole && at->second.size() > 1) misfits_.push_back({parameter.name, "given twice: stacked and by expert"});
  if (whole) return;
  for (const auto& part : stored_names(parameter.name, parameter.shape, checkpoint::NameStyle::kOfficial))
    if (!has(part.name))
      misfits_.push_back(
          {part.stored, fmt::format("missing; a part of {} {}", parameter.name, parameter.shape.to_string())});
}

std::vector<const Piece*> Weights::pieces_of(const std::string& parameter) const {
  std::vector<const Piece*> out;
  if (const auto at = pieces_of_.find(parameter); at != pieces_of_.end())
    for (const size_t i : at->second) out.push_back(&pieces_[i]);
  return out;
}

void Weights::refuse_misfits() const {
  constexpr size_t kMaxShown = 20;
  if (misfits_.empty()) return;
  std::string text;
  for (size_t i = 0; i < std::min(kMaxShown, misfits_.size()); ++i)
    text += fmt::format("\n  {}: {}", misfits_[i].tensor, misfits_[i].message);
  if (misfits_.size() > kMaxShown) text += fmt::format("\n  and {} more", misfits_.size() - kMaxShown);
  fail(ErrorCode::kCorrupt, "{}: the weights do not fit config.json; {} tensors are wrong:{}", dir_.string(),
       misfits_.size(), text);
}

void Weights::load(layers::Ctx& ctx, const layers::Parameter& parameter) const {
  for (const Piece* piece : pieces_of(parameter.name)) {
    upload(ctx, as_rows(checkpoint::part_of(parameter.value, piece->name)), piece->tensor, 0);
    release(piece->tensor);
  }
}

void Weights::load_rows(layers::Ctx& ctx, const View& to, const std::string& parameter, int64_t begin,
                        int64_t end) const {
  const auto pieces = pieces_of(parameter);
  CHECK(pieces.size() == 1 && to.dim(0) == end - begin, parameter, pieces.size(), to.to_string(), begin, end);
  upload(ctx, to, pieces[0]->tensor, begin);
}

}  // namespace temper::verify
