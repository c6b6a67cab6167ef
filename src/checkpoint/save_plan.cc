#include "checkpoint/save_plan.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/whole_weights.h"

namespace temper::checkpoint {
namespace {

using layers::Parameter;
using Tensor = WeightSource::Tensor;

// How a weight is stored. weight is the dtype of numbers or of codes.
struct Format {
  Encoding encoding = Encoding::kPlain;
  FileDType weight = FileDType::kF32, scale = FileDType::kF8E8M0;
};

Format plain(FileDType dtype) { return {Encoding::kPlain, dtype}; }

bool is_quantised(const Tensor& tensor) {
  return tensor.problem.empty() && tensor.encoded.encoding != Encoding::kPlain;
}

bool is_integer(FileDType dtype) { return dtype == FileDType::kI64 || dtype == FileDType::kI32; }

Format source_format(const EncodedTensor& source) {
  return {source.encoding, source.weight->dtype, source.scale ? source.scale->dtype : FileDType::kF8E8M0};
}

// As the released checkpoints store it. A row that does not divide into blocks of FP4 is stored in FP8.
Format release_format(const std::string& parameter, const std::vector<int64_t>& shape) {
  switch (release_dtype(parameter)) {
    case ReleaseDType::kBF16:
      return plain(FileDType::kBF16);
    case ReleaseDType::kF32:
      return plain(FileDType::kF32);
    case ReleaseDType::kI64:
      return plain(FileDType::kI64);
    case ReleaseDType::kFp4:
      if (shape.back() % kFp4Block == 0) return {Encoding::kFp4, FileDType::kI8};
      [[fallthrough]];
    case ReleaseDType::kFp8:
      break;
  }
  return {Encoding::kFp8, FileDType::kF8E4M3};
}

class Planner {
 public:
  Planner(const WeightSource* source, SaveDType wanted, std::optional<NameStyle> style)
      : source_(source), wanted_(wanted), style_(style) {
    const auto& tensors = source ? source->tensors() : std::vector<Tensor>{};
    is_source_quantised_ = std::any_of(tensors.begin(), tensors.end(), is_quantised);
    if (wanted_ == SaveDType::kSource && !source) wanted_ = SaveDType::kF32;
    // A directory of quantised tensors is official already: what it has stays as it is. Others become official.
    if (wanted_ == SaveDType::kOfficial && is_source_quantised_) wanted_ = SaveDType::kSource;
    if (wanted_ == SaveDType::kOfficial && !style_) style_ = NameStyle::kOfficial;
  }

  std::vector<PlannedWeight> plan(std::span<Parameter* const> parameters) {
    for (const Parameter* parameter : parameters) add(*parameter);
    const bool has_mtp = std::any_of(parameters.begin(), parameters.end(),
                                     [](const Parameter* parameter) { return is_mtp_name(parameter->name); });
    if (source_ && !has_mtp)
      for (const Tensor& tensor : source_->tensors())
        if (is_mtp_name(tensor.stored_name())) carry(tensor);
    return std::move(plan_);
  }

 private:
  // The source's tensors of a parameter; nothing unless they are exactly the parameter.
  std::vector<const Tensor*> source_of(const Parameter& parameter) const {
    if (!source_) return {};
    auto tensors = source_->tensors_of(parameter.name);
    int64_t size = 0;
    for (const Tensor* tensor : tensors) {
      const TensorName& name = *tensor->name;
      const bool is_part = parameter.shape.rank() == 3 && name.expert < parameter.shape[0];
      if (!tensor->problem.empty() || (name.part != Part::kWhole && !is_part)) return {};
      if (part_of(View(nullptr, parameter.dtype, parameter.shape), name).size() != tensor->encoded.size()) return {};
      size += tensor->encoded.size();
    }
    if (size != parameter.shape.size()) tensors.clear();
    return tensors;
  }

  Format choose(const Parameter& parameter, const std::vector<int64_t>& shape, const Tensor* source) const {
    const FileDType own = file_dtype(parameter.dtype);
    if (is_integer(own))
      return plain(source && is_integer(source->encoded.weight->dtype) ? source->encoded.weight->dtype
                                                                       : FileDType::kI64);
    if (wanted_ == SaveDType::kOfficial) return release_format(parameter.name, shape);
    if (wanted_ == SaveDType::kSource && source) return source_format(source->encoded);
    if (wanted_ == SaveDType::kSource && is_source_quantised_) return release_format(parameter.name, shape);
    const bool is_narrow = wanted_ == SaveDType::kBF16 && !is_kept_in_fp32(parameter.name);
    return plain(is_narrow ? FileDType::kBF16 : FileDType::kF32);
  }

  void add(const Parameter& parameter) {
    const auto tensors = source_of(parameter);
    if (!tensors.empty() && !style_) {
      for (const Tensor* tensor : tensors) add_part(parameter, tensor->stored_name(), *tensor->name, tensor);
      return;
    }
    const auto style = style_.value_or(is_source_quantised_ ? NameStyle::kOfficial : NameStyle::kTransformers);
    for (const auto& [stored, name] : stored_names(parameter.name, parameter.shape, style)) {
      // Without one of the same part, any tells the format.
      auto example = std::find_if(tensors.begin(), tensors.end(), [&part = name](const Tensor* tensor) {
        return tensor->name->part == part.part && tensor->name->expert == part.expert;
      });
      if (example == tensors.end()) example = tensors.begin();
      add_part(parameter, stored, name, tensors.empty() ? nullptr : *example);
    }
  }

  void add_part(const Parameter& parameter, const std::string& stored, const TensorName& name, const Tensor* source) {
    PlannedWeight planned;
    planned.parameter = &parameter;
    planned.from = part_of(View(nullptr, WholeWeights::record_dtype(parameter), parameter.shape), name);
    const Shape& dims = planned.from.shape;
    std::vector<int64_t> shape(static_cast<size_t>(dims.rank()));
    for (int i = 0; i < dims.rank(); ++i) shape[static_cast<size_t>(i)] = dims[i];
    const Format format = choose(parameter, shape, source);
    if (format.encoding != Encoding::kPlain && shape.size() != 2)
      fail(ErrorCode::kInvalidArgument,
           "{} cannot be quantised with its experts stacked; write official or transformers' names, or bf16", stored);
    set_format(planned, stored, shape, format);
    const bool is_same_part = source && source->name->part == name.part && source->name->expert == name.expert;
    if (is_same_part) planned.source = &source->encoded;
    if (planned.scale && planned.source && planned.source->scale && stored == source->stored_name())
      planned.scale->name = planned.source->scale->name;  // there are several spellings
    // Numbers that memory holds without rounding come back as the same bytes anyway.
    const bool is_exact =
        format.encoding == Encoding::kPlain && (format.weight == file_dtype(planned.from.dtype) ||
                                                file_dtype_bytes(format.weight) < dtype_bytes(planned.from.dtype));
    if (is_exact || !planned.is_stored_alike()) planned.source = nullptr;
    plan_.push_back(std::move(planned));
  }

  // Byte for byte, except that a directory of one dtype has no quantised tensors that can be decoded.
  void carry(const Tensor& tensor) {
    PlannedWeight planned;
    planned.source = &tensor.encoded;
    if (is_quantised(tensor) && (wanted_ == SaveDType::kBF16 || wanted_ == SaveDType::kF32)) {
      set_format(planned, tensor.stored_name(), tensor.encoded.shape,
                 plain(wanted_ == SaveDType::kBF16 ? FileDType::kBF16 : FileDType::kF32));
    } else {
      planned.weight = *tensor.encoded.weight;
      if (tensor.encoded.scale) planned.scale = *tensor.encoded.scale;
      if (tensor.problem.empty()) planned.encoding = tensor.encoded.encoding;  // else bytes of unknown meaning
    }
    plan_.push_back(std::move(planned));
  }

  static void set_format(PlannedWeight& planned, const std::string& stored, const std::vector<int64_t>& shape,
                         const Format& format) {
    planned.encoding = format.encoding;
    planned.weight = {stored, format.weight, stored_shape(format.encoding, shape)};
    if (format.encoding != Encoding::kPlain)
      planned.scale = TensorInfo{scale_name(stored), format.scale, scale_shape(format.encoding, shape)};
  }

  const WeightSource* source_;
  SaveDType wanted_;
  std::optional<NameStyle> style_;
  bool is_source_quantised_ = false;
  std::vector<PlannedWeight> plan_;
};

}  // namespace

bool PlannedWeight::is_stored_alike() const {
  const auto alike = [](const TensorInfo& a, const TensorInfo& b) { return a.dtype == b.dtype && a.shape == b.shape; };
  if (!source || !alike(weight, *source->weight) || scale.has_value() != (source->scale != nullptr)) return false;
  return !scale || alike(*scale, *source->scale);
}

std::vector<PlannedWeight> plan_save(std::span<Parameter* const> parameters, const WeightSource* source,
                                     SaveDType wanted, std::optional<NameStyle> style) {
  return Planner(source, wanted, style).plan(parameters);
}

}  // namespace temper::checkpoint
