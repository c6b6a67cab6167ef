#include "checkpoint/weight_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <regex>

#include "base/error.h"
#include "checkpoint/convert.h"

namespace temper::checkpoint {
namespace {

using layers::Parameter;

std::string place(const WeightSource::Tensor& tensor) {
  return fmt::format("{} in {}", tensor.stored_name(), tensor.file->path().filename().string());
}

bool is_integer(DType dtype) { return dtype == DType::kI64 || dtype == DType::kI32; }

bool equal(const Shape& shape, const std::vector<int64_t>& dims) {
  bool same = shape.rank() == static_cast<int>(dims.size());
  for (int i = 0; same && i < shape.rank(); ++i) same = shape[i] == dims[static_cast<size_t>(i)];
  return same;
}

// Why the tensor cannot fill its part of the parameter; empty if it can. The expert exists.
std::string misfit(const WeightSource::Tensor& tensor, const Parameter& parameter) {
  if (!tensor.problem.empty()) return "wrong encoding: " + tensor.problem;
  const EncodedTensor& encoded = tensor.encoded;
  const bool is_plain = encoded.encoding == Encoding::kPlain;
  if (is_plain ? !is_convertible(file_dtype(parameter.dtype), encoded.weight->dtype) : is_integer(parameter.dtype))
    return fmt::format("wrong dtype: {} is {}, expected {}", place(tensor), encoded.to_string(),
                       is_integer(parameter.dtype) ? "I64 or I32" : "F64, F32, F16, BF16, FP8 or FP4");
  const Shape shape = part_of(View(nullptr, parameter.dtype, parameter.whole_shape()), *tensor.name).shape;
  if (equal(shape, encoded.shape)) return "";
  return fmt::format("wrong shape: {} is {}, expected {}", place(tensor), encoded.to_string(), shape.to_string());
}

// Decides which names may be missing.
class Allowance {
 public:
  explicit Allowance(const std::string& pattern) {
    if (pattern.empty()) return;
    try {
      pattern_.emplace(pattern);
    } catch (const std::regex_error& error) {
      fail(ErrorCode::kInvalidArgument, "allow-missing: \"{}\" is not a regular expression: {}", pattern, error.what());
    }
  }
  bool allows(const std::string& name) const { return pattern_ && std::regex_match(name, *pattern_); }

 private:
  std::optional<std::regex> pattern_;
};

// Whether this rank has anything of it.
bool is_wanted(const TensorName& name, const Parameter& parameter) {
  const int64_t expert = name.expert - parameter.part.begin;
  return name.part == Part::kWhole || (expert >= 0 && expert < parameter.shape[0]);
}

// Compares the tensors of one parameter, also those of other ranks' parts of it, with it.
void fit_parameter(const Parameter& parameter, const std::vector<const WeightSource::Tensor*>& tensors,
                   const Allowance& allowance, WeightSource::Fit& fit) {
  std::map<std::pair<int64_t, Part>, const WeightSource::Tensor*> found;
  for (const WeightSource::Tensor* tensor : tensors) {
    const TensorName& name = *tensor->name;
    const Shape& whole = parameter.whole_shape();
    if (name.part != Part::kWhole && (whole.rank() != 3 || name.expert >= whole[0])) {
      fit.misfits.push_back(fmt::format("unknown: {}; the model has {} experts", place(*tensor), whole[0]));
      continue;
    }
    const auto [at, is_new] = found.emplace(std::pair(name.expert, name.part), tensor);
    if (!is_new) {
      fit.misfits.push_back(fmt::format("given twice: {} and {}", place(*tensor), place(*at->second)));
      continue;
    }
    if (const std::string problem = misfit(*tensor, parameter); !problem.empty())
      fit.misfits.push_back(problem);
    else if (is_wanted(name, parameter))
      fit.pieces.push_back({tensor, &parameter});
  }
  const bool has_whole = found.contains({-1, Part::kWhole});
  if (has_whole && found.size() > 1)
    fit.misfits.push_back(fmt::format("given twice: {}, stacked and by expert", parameter.name));
  if (has_whole) return;
  const std::string expected = fmt::format("{} {}", parameter.name, parameter.whole_shape().to_string());
  const bool may_miss = allowance.allows(parameter.name);
  if (found.empty()) {
    if (may_miss)
      fit.missing.push_back(parameter.name);
    else
      fit.misfits.push_back("missing: " + expected);
    return;
  }
  for (const auto& [stored, name] : stored_names(parameter.name, parameter.whole_shape(), NameStyle::kOfficial)) {
    if (found.contains({name.expert, name.part})) continue;
    if (may_miss || allowance.allows(stored))
      fit.missing.push_back(stored);
    else
      fit.misfits.push_back(fmt::format("missing: {} of {}", stored, expected));
  }
}

}  // namespace

WeightSource::WeightSource(const std::filesystem::path& dir) : dir_(dir), files_(dir) {
  std::unordered_map<std::string_view, const StoredTensor*> weights;  // those that may have a scale, by name
  for (const auto& item : files_.items()) weights[item.tensor->name] = item.tensor;
  std::unordered_map<const StoredTensor*, const TensorDir::Item*> scales;  // by their weights
  for (const auto& item : files_.items()) {
    const auto& [stored, file] = item;
    if (parse_tensor_name(stored->name)) continue;
    const auto weight = weight_of_scale(stored->name);
    if (!weight) continue;
    const auto at = weights.find(*weight);
    const std::string where = fmt::format("{} in {}", stored->name, file->path().filename().string());
    if (at == weights.end())
      strays_.push_back(fmt::format("unknown: {} is the scale of {}, which is not there", where, *weight));
    else if (!scales.emplace(at->second, &item).second)
      strays_.push_back(fmt::format("given twice: {} is a second scale of {}", where, *weight));
  }
  for (const auto& [stored, file] : files_.items()) {
    const bool is_scale = !parse_tensor_name(stored->name) && weight_of_scale(stored->name);
    const auto scale = scales.find(stored);
    if (!is_scale) add(*stored, *file, scale == scales.end() ? nullptr : scale->second);
  }
  find_mtp_kind();
}

void WeightSource::add(const StoredTensor& weight, const SafetensorsFile& file, const TensorDir::Item* scale) {
  Tensor tensor;
  tensor.problem = detect_encoding(weight, scale ? scale->tensor : nullptr, tensor.encoded);
  tensor.name = parse_tensor_name(weight.name);
  tensor.file = &file;
  tensor.scale_file = scale ? scale->file : nullptr;
  if (tensor.name) by_parameter_[tensor.name->parameter].push_back(tensors_.size());
  tensors_.push_back(std::move(tensor));
}

void WeightSource::find_mtp_kind() {
  for (const Tensor& tensor : tensors_) {
    const std::string& name = tensor.stored_name();
    if (!is_mtp_name(name) || is_mtp_copy(name)) continue;
    if (mtp_kind_ == MtpKind::kNone) mtp_kind_ = MtpKind::kV4;
    const auto& shape = tensor.encoded.shape;
    const bool is_projection = tensor.name && (tensor.name->parameter == "mtp.0.e_proj.weight" ||
                                               tensor.name->parameter == "mtp.0.h_proj.weight");
    const bool is_square = shape.size() == 2 && shape[0] == shape[1];
    if (mtp_kind_ == MtpKind::kOther || (!is_foreign_mtp_name(name) && (!is_projection || is_square))) continue;
    mtp_kind_ = MtpKind::kOther;
    mtp_example_ = fmt::format("{} {}", name, tensor.encoded.weight->to_string());
  }
}

std::vector<const WeightSource::Tensor*> WeightSource::tensors_of(const std::string& parameter) const {
  std::vector<const Tensor*> tensors;
  if (const auto at = by_parameter_.find(parameter); at != by_parameter_.end())
    for (const size_t i : at->second) tensors.push_back(&tensors_[i]);
  return tensors;
}

WeightSource::Fit WeightSource::fit(std::span<Parameter* const> parameters, bool is_whole_model,
                                    const LoadOptions& options) const {
  Fit fit;
  const Allowance allowance(options.allow_missing);
  std::unordered_map<std::string_view, const Parameter*> known;
  bool has_mtp = false;
  for (const Parameter* parameter : parameters) {
    known[parameter->name] = parameter;
    has_mtp |= is_mtp_name(parameter->name);
  }
  if (has_mtp && mtp_kind_ == MtpKind::kOther)
    fail(ErrorCode::kUnsupported,
         "{}: the model has V4's block for multi-token prediction, but the tensors under mtp. are another one's, for "
         "example {}; leave the block out, or take a directory that has V4's",
         dir_.string(), mtp_example_);
  if (is_whole_model) {
    fit.misfits = strays_;
    for (const Tensor& tensor : tensors_) {
      if (tensor.name && known.contains(tensor.name->parameter)) continue;
      if (is_mtp_name(tensor.stored_name()) && (!has_mtp || is_mtp_copy(tensor.stored_name())))
        ++fit.num_skipped;
      else
        fit.misfits.push_back(fmt::format("unknown: {}; the model of config.json has no such tensor", place(tensor)));
    }
  }
  for (const Parameter* parameter : parameters) fit_parameter(*parameter, tensors_of(parameter->name), allowance, fit);
  return fit;
}

}  // namespace temper::checkpoint
