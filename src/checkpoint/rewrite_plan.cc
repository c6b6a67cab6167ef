#include "checkpoint/rewrite_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "checkpoint/convert.h"
#include "model/model.h"

namespace temper::checkpoint {
namespace {

using layers::Parameter;

// What a target tensor is made of.
struct Form {
  Encoding encoding = Encoding::kPlain;
  FileDType dtype = FileDType::kF32;           // of the weight
  FileDType scale_dtype = FileDType::kF8E8M0;  // where encoding is not kPlain
};

bool is_integer(FileDType dtype) { return dtype == FileDType::kI64 || dtype == FileDType::kI32; }

Form form_of(const EncodedTensor& source) {
  return {source.encoding, source.weight->dtype, source.scale ? source.scale->dtype : FileDType::kF8E8M0};
}

Form official_form(const std::string& parameter, const EncodedTensor& source) {
  switch (release_dtype(parameter)) {
    case ReleaseDType::kBF16:
      return {.dtype = FileDType::kBF16};
    case ReleaseDType::kF32:
      return {.dtype = FileDType::kF32};
    case ReleaseDType::kI64:
      return {.dtype = FileDType::kI64};
    case ReleaseDType::kFp8:
      return source.encoding == Encoding::kFp8 ? form_of(source) : Form{Encoding::kFp8, FileDType::kF8E4M3};
    case ReleaseDType::kFp4:
      return source.encoding == Encoding::kFp4 ? form_of(source) : Form{Encoding::kFp4, FileDType::kI8};
  }
  CHECK(false, parameter);
}

Form choose_form(const std::string& parameter, const EncodedTensor& source, RewriteDType dtype) {
  if (dtype == RewriteDType::kSource) return form_of(source);
  if (dtype == RewriteDType::kOfficial) return official_form(parameter, source);
  if (is_integer(source.weight->dtype)) return form_of(source);
  return {.dtype = dtype == RewriteDType::kF32 || is_kept_in_fp32(parameter) ? FileDType::kF32 : FileDType::kBF16};
}

RewriteAction action_of(const Form& target, const EncodedTensor& source) {
  if (target.encoding == source.encoding && target.dtype == source.weight->dtype) return RewriteAction::kCopied;
  if (target.encoding != Encoding::kPlain) return RewriteAction::kQuantised;
  return source.encoding == Encoding::kPlain ? RewriteAction::kCast : RewriteAction::kDequantised;
}

std::vector<int64_t> dims_of(const Shape& shape) {
  std::vector<int64_t> dims(static_cast<size_t>(shape.rank()));
  for (int i = 0; i < shape.rank(); ++i) dims[static_cast<size_t>(i)] = shape[i];
  return dims;
}

// Rows of a parameter that one of its parts is.
struct Rows {
  int64_t begin, end;
  Shape shape;  // of the part
};
Rows rows_of(const Parameter& parameter, const TensorName& name) {
  const View part = part_of(View(nullptr, DType::kF32, parameter.shape), name);
  const int64_t num_columns = part.rank() == 0 ? 1 : std::max<int64_t>(part.dim(part.rank() - 1), 1);
  return {part.offset / num_columns, (part.offset + part.size()) / num_columns, part.shape};
}

// Target tensors with the pieces that fill them; those of one weight, scale included, go to one file.
struct Unit {
  std::vector<TargetTensor> targets;  // a weight, and its scale if it has one
  std::vector<RewritePiece> pieces;   // target and target_scale count within targets

  int64_t num_bytes() const {
    int64_t sum = 0;
    for (const auto& target : targets) sum += target.info.num_bytes();
    return sum;
  }
};

class Planner {
 public:
  Planner(const WeightSource& source, const RewriteOptions& options) : source_(source), options_(options) {}

  void add(const Parameter& parameter) {
    const auto tensors = source_.tensors_of(parameter.name);
    if (tensors.empty()) return;
    for (const auto& [stored, name] : stored_names(parameter.name, parameter.shape, options_.names()))
      add_target(parameter, stored, name, tensors);
  }

  // A tensor that stays what it is.
  void add_copy(const StoredTensor& stored, const SafetensorsFile& file) {
    RewritePiece piece;
    piece.source = {&stored, nullptr, Encoding::kPlain, stored.shape};
    piece.file = &file;
    piece.row_end = piece.source.num_rows();
    units_.push_back({{{stored, 0}}, {piece}});
  }

  std::vector<Unit> take() { return std::move(units_); }

 private:
  void add_target(const Parameter& parameter, const std::string& stored, const TensorName& name,
                  const std::vector<const WeightSource::Tensor*>& tensors) {
    const Rows target = rows_of(parameter, name);
    Unit unit;
    int64_t num_rows = 0;
    for (const WeightSource::Tensor* tensor : tensors) {
      const Rows source = rows_of(parameter, *tensor->name);
      const int64_t begin = std::max(source.begin, target.begin), end = std::min(source.end, target.end);
      if (begin >= end) continue;
      if (unit.targets.empty()) declare(unit, parameter.name, stored, target.shape, tensor->encoded);
      RewritePiece piece;
      piece.source = tensor->encoded;
      piece.file = tensor->file;
      piece.scale_file = tensor->scale_file;
      piece.row_begin = begin - source.begin, piece.row_end = end - source.begin;
      piece.target_row = begin - target.begin;
      piece.encoding = form_.encoding;
      piece.target_scale = 1;
      piece.action = action_of(form_, tensor->encoded);
      unit.pieces.push_back(piece);
      num_rows += end - begin;
    }
    if (unit.pieces.empty()) return;  // allowed to be missing
    if (num_rows != target.end - target.begin)
      fail(ErrorCode::kUnsupported,
           "{}: {} of {} rows are missing, and a stack of experts has no place for what is not there; ask for names "
           "official or transformers",
           stored, target.end - target.begin - num_rows, target.end - target.begin);
    units_.push_back(std::move(unit));
  }

  // example: the first of the tensors that become the target.
  void declare(Unit& unit, const std::string& parameter, const std::string& stored, const Shape& shape,
               const EncodedTensor& example) {
    form_ = choose_form(parameter, example, options_.dtype);
    const auto dims = dims_of(shape);
    if (form_.encoding == Encoding::kPlain) {
      unit.targets.push_back({{stored, form_.dtype, dims}, 0});
      return;
    }
    if (dims.size() != 2)
      fail(ErrorCode::kUnsupported,
           "{}: experts are either stacked or quantised, not both; ask for names official or transformers, or for "
           "dtype bf16 or fp32",
           stored);
    if (form_.encoding == Encoding::kFp4 && dims[1] % kFp4Block != 0)
      fail(ErrorCode::kUnsupported, "{}: FP4 has a scale for each {} columns, and this matrix has {}; ask for bf16",
           stored, kFp4Block, dims[1]);
    unit.targets.push_back({{stored, form_.dtype, stored_shape(form_.encoding, dims)}, 0});
    unit.targets.push_back({{scale_name(stored), form_.scale_dtype, scale_shape(form_.encoding, dims)}, 0});
  }

  const WeightSource& source_;
  const RewriteOptions& options_;
  Form form_;  // of the target at hand
  std::vector<Unit> units_;
};

// Files of at most max_bytes, except where one unit is larger.
std::vector<std::vector<Unit>> cut(std::vector<Unit> units, int64_t max_bytes) {
  std::vector<std::vector<Unit>> files;
  int64_t num_bytes = 0;
  for (auto& unit : units) {
    if (files.empty() || num_bytes + unit.num_bytes() > max_bytes) {
      files.emplace_back();
      num_bytes = 0;
    }
    num_bytes += unit.num_bytes();
    files.back().push_back(std::move(unit));
  }
  return files;
}

// Gives the targets of a file their places, wide elements first: every tensor is then aligned to its elements.
void lay_out(RewritePlan& plan, TargetFile& file) {
  std::stable_sort(file.targets.begin(), file.targets.end(), [&](size_t a, size_t b) {
    return file_dtype_bytes(plan.targets[a].info.dtype) > file_dtype_bytes(plan.targets[b].info.dtype);
  });
  std::vector<TensorInfo> infos;
  for (const size_t i : file.targets) infos.push_back(plan.targets[i].info);
  file.header = safetensors_header(infos);
  file.num_bytes = static_cast<int64_t>(file.header.size());
  for (const size_t i : file.targets) {
    plan.targets[i].offset = file.num_bytes;
    file.num_bytes += plan.targets[i].info.num_bytes();
  }
}

void add_file(RewritePlan& plan, std::vector<Unit> units, const std::string& name) {
  TargetFile file;
  file.name = name;
  for (auto& unit : units) {
    const size_t first = plan.targets.size();
    for (size_t i = 0; i < unit.targets.size(); ++i) file.targets.push_back(first + i);
    for (auto& piece : unit.pieces) {
      piece.target += first, piece.target_scale += first;
      const int64_t num_rows = std::max<int64_t>(piece.source.num_rows(), 1);
      plan.source_bytes += piece.source.num_bytes() / num_rows * (piece.row_end - piece.row_begin);
      plan.is_quantised |= piece.encoding != Encoding::kPlain;
      file.pieces.push_back(std::move(piece));
    }
    std::move(unit.targets.begin(), unit.targets.end(), std::back_inserter(plan.targets));
  }
  lay_out(plan, file);
  plan.target_bytes += file.num_bytes;
  plan.num_pieces += static_cast<int64_t>(file.pieces.size());
  plan.files.push_back(std::move(file));
}

// A model whose parameters have names and shapes and no memory.
model::Model named_model(model::Config config, bool has_mtp) {
  config.num_nextn_predict_layers = has_mtp ? 1 : 0;  // what the directory has is what counts here
  model::ModelOptions options;
  options.max_tokens = 1;
  options.train = false;
  options.mtp = has_mtp;
  return {std::move(config), options};
}

}  // namespace

const char* rewrite_action_name(RewriteAction action) {
  switch (action) {
    case RewriteAction::kCopied:
      return "copied";
    case RewriteAction::kDequantised:
      return "dequantised";
    case RewriteAction::kQuantised:
      return "quantised";
    case RewriteAction::kCast:
      return "cast";
  }
  return "";
}

RewritePlan plan_rewrite(const WeightSource& source, const model::Config& config, const RewriteOptions& options) {
  const model::Model model = named_model(config, source.mtp_kind() == MtpKind::kV4);
  const auto fit = source.fit(model.parameters(), true, {options.allow_missing});
  source.refuse_misfits(fit);
  RewritePlan plan;
  plan.missing = fit.missing;
  Planner planner(source, options);
  for (const Parameter* parameter : model.parameters()) planner.add(*parameter);
  for (const auto& tensor : source.tensors()) {
    if (!is_mtp_name(tensor.stored_name())) continue;
    if (source.mtp_kind() == MtpKind::kOther) {
      planner.add_copy(*tensor.encoded.weight, *tensor.file);
      if (tensor.encoded.scale) planner.add_copy(*tensor.encoded.scale, *tensor.scale_file);
      plan.num_foreign += tensor.encoded.scale ? 2 : 1;
    } else if (is_mtp_copy(tensor.stored_name())) {
      plan.dropped.push_back(&tensor);
    }
  }
  auto files = cut(planner.take(), options.max_shard_bytes);
  for (size_t i = 0; i < files.size(); ++i)
    add_file(plan, std::move(files[i]),
             files.size() == 1 ? std::string(kSingleFileName)
                               : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size()));
  return plan;
}

}  // namespace temper::checkpoint
