#include <fmt/format.h>

#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/tensor_dir.h"

namespace temper::checkpoint {
namespace {

using layers::Parameter;

constexpr int64_t kChunkElements = 1 << 20;

// Complaints about one directory, thrown together.
class Problems {
 public:
  void add(const std::string& text) {
    if (count_++ < kMaxShown) text_ += "\n  " + text;
  }
  int64_t count() const { return count_; }
  std::string to_string() const {
    return count_ > kMaxShown ? fmt::format("{}\n  and {} more", text_, count_ - kMaxShown) : text_;
  }

 private:
  static constexpr int64_t kMaxShown = 20;
  int64_t count_ = 0;
  std::string text_;
};

// A stored tensor and the part of a parameter that it fills.
struct Piece {
  const StoredTensor* stored;
  const Parameter* parameter;
  TensorName name;
};

// Matches the tensors of a directory with parameters, collecting problems.
class Matcher {
 public:
  Matcher(const std::filesystem::path& dir, std::span<Parameter* const> parameters) : dir_(dir), tensors_(dir) {
    for (const Parameter* parameter : parameters) by_name_[parameter->name] = parameter;
    for (const auto& [stored, file] : tensors_.items()) match(*stored, file->path().filename().string());
    refuse_quantised();
    for (const Parameter* parameter : parameters) check_complete(*parameter);
    for (const auto& piece : pieces_) check_expert_table(piece);
    if (problems_.count() > 0)
      fail(ErrorCode::kCorrupt, "{}: the weights do not fit config.json; {} tensors are wrong:{}", dir_.string(),
           problems_.count(), problems_.to_string());
  }

  const std::vector<Piece>& pieces() const { return pieces_; }
  int64_t num_skipped() const { return num_skipped_; }

 private:
  void match(const StoredTensor& stored, const std::string& file) {
    if (is_mtp_name(stored.name)) {
      ++num_skipped_;
      return;
    }
    const auto name = parse_tensor_name(stored.name);
    if (!name && weight_of_scale(stored.name)) return quantised_.push_back(stored.name);
    const auto at = name ? by_name_.find(name->parameter) : by_name_.end();
    if (at == by_name_.end())
      return problems_.add(
          fmt::format("unknown: {} in {}; the model of config.json has no such tensor", stored.name, file));
    const Parameter& parameter = *at->second;
    if (name->part != Part::kWhole && name->expert >= parameter.shape[0])
      return problems_.add(
          fmt::format("unknown: {} in {}; the model has {} experts", stored.name, file, parameter.shape[0]));
    const FileDType wanted = file_dtype(parameter.dtype);
    if (!is_convertible(wanted, stored.dtype) && file_dtype_bytes(stored.dtype) == 1)
      return quantised_.push_back(stored.name);
    const bool is_new = filled_.insert(fmt::format("{} {} {}", name->parameter, name->expert, int(name->part))).second;
    if (!is_new) return problems_.add(fmt::format("given twice: {} in {} under another name", stored.name, file));
    const Shape shape = part_of(View(nullptr, parameter.dtype, parameter.shape), *name).shape;
    filled_elements_[&parameter] += shape.size();  // a wrong tensor is not also a missing one
    if (!is_convertible(wanted, stored.dtype))
      problems_.add(
          fmt::format("wrong dtype: {} in {} is {}, expected {}", stored.name, file, stored.to_string(),
                      wanted == FileDType::kI64 || wanted == FileDType::kI32 ? "I64 or I32" : "F64, F32, F16 or BF16"));
    else if (!equal(shape, stored.shape))
      problems_.add(fmt::format("wrong shape: {} in {} is {}, expected {}", stored.name, file, stored.to_string(),
                                shape.to_string()));
    else
      pieces_.push_back({&stored, &parameter, *name});
  }

  static bool equal(const Shape& shape, const std::vector<int64_t>& dims) {
    bool same = shape.rank() == static_cast<int>(dims.size());
    for (int i = 0; same && i < shape.rank(); ++i) same = shape[i] == dims[static_cast<size_t>(i)];
    return same;
  }

  void refuse_quantised() const {
    if (quantised_.empty()) return;
    fail(ErrorCode::kUnsupported,
         "{}: {} tensors are quantised (FP8, FP4 or their scales), the first is {}; this version reads F64, F32, F16 "
         "and BF16: convert the directory to bf16 first",
         dir_.string(), quantised_.size(), quantised_.front());
  }

  void check_complete(const Parameter& parameter) {
    const auto at = filled_elements_.find(&parameter);
    if (at != filled_elements_.end() && at->second == parameter.shape.size()) return;
    if (at != filled_elements_.end() && at->second > parameter.shape.size())
      return problems_.add(fmt::format("given twice: {}, stacked and by expert", parameter.name));
    const std::string expected = fmt::format("{} {}", parameter.name, parameter.shape.to_string());
    if (at == filled_elements_.end()) return problems_.add(fmt::format("missing: {}", expected));
    for (const auto& [stored, name] : stored_names(parameter.name, parameter.shape, NameStyle::kOfficial))
      if (!filled_.contains(fmt::format("{} {} {}", name.parameter, name.expert, int(name.part))))
        return problems_.add(fmt::format("missing: {} of {}", stored, expected));
  }

  // A hash layer's table must name experts that exist: the kernels index by it.
  void check_expert_table(const Piece& piece) {
    constexpr std::string_view kTable = "tid2eid";
    const std::string& name = piece.parameter->name;
    if (!name.ends_with(kTable)) return;
    const auto gate = by_name_.find(name.substr(0, name.size() - kTable.size()) + "weight");
    if (gate == by_name_.end()) return;
    const int64_t num_experts = gate->second->shape[0], width = file_dtype_bytes(piece.stored->dtype);
    for (int64_t i = 0; i < piece.stored->size(); ++i) {
      int64_t expert = 0;
      convert_elements(&expert, FileDType::kI64, piece.stored->data + i * width, piece.stored->dtype, 1);
      if (expert >= 0 && expert < num_experts) continue;
      return problems_.add(fmt::format("wrong value: {} element {} is expert {}, the model has {}", piece.stored->name,
                                       i, expert, num_experts));
    }
  }

  const std::filesystem::path& dir_;
  TensorDir tensors_;
  Problems problems_;
  std::unordered_map<std::string, const Parameter*> by_name_;
  std::unordered_map<const Parameter*, int64_t> filled_elements_;
  std::unordered_set<std::string> filled_;  // "parameter expert part"
  std::vector<std::string> quantised_;
  std::vector<Piece> pieces_;
  int64_t num_skipped_ = 0;
};

void upload(layers::Ctx& ctx, const View& to, const StoredTensor& from, std::vector<std::byte>& buffer) {
  const View flat = to.reshape({to.size()});
  for (int64_t begin = 0; begin < to.size(); begin += kChunkElements) {
    const int64_t end = std::min(begin + kChunkElements, to.size());
    buffer.resize(static_cast<size_t>((end - begin) * dtype_bytes(to.dtype)));
    convert_elements(buffer.data(), file_dtype(to.dtype), from.data + begin * file_dtype_bytes(from.dtype), from.dtype,
                     end - begin);
    ctx.device.copy_to_device(ctx.stream, flat.slice(0, begin, end), buffer.data());
  }
}

}  // namespace

model::Config load_config(const std::filesystem::path& dir) {
  if (!std::filesystem::is_directory(dir))
    fail(ErrorCode::kNotFound, "{}: no such directory; expected a Hugging Face model directory", dir.string());
  const auto path = dir / "config.json";
  return model::parse_config(read_file(path), path.string());
}

LoadReport load_weights(const std::filesystem::path& dir, layers::Ctx& ctx, std::span<Parameter* const> parameters) {
  const Matcher matcher(dir, parameters);
  LoadReport report;
  report.num_skipped = matcher.num_skipped();
  std::vector<std::byte> buffer;
  for (const auto& [stored, parameter, name] : matcher.pieces()) {
    const View &master = parameter->master, &value = parameter->value;
    if (master.defined()) upload(ctx, part_of(master, name), *stored, buffer);
    if (!master.defined() || master.raw() != value.raw()) upload(ctx, part_of(value, name), *stored, buffer);
    ++report.num_tensors;
    report.num_bytes += stored->num_bytes();
  }
  return report;
}

}  // namespace temper::checkpoint
