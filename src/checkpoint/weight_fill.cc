// Values from stored tensors into parameters.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/thread.h"
#include "checkpoint/convert.h"
#include "checkpoint/weight_source.h"

namespace temper::checkpoint {
namespace {

using layers::Parameter;

constexpr int64_t kChunkElements = 1 << 20, kThreadElements = 1 << 15;

// A hash layer's table must name experts that exist: the kernels index by it.
void check_expert_table(const StoredTensor& table, int64_t num_experts, std::vector<std::string>& problems) {
  for (int64_t i = 0; i < table.size(); ++i) {
    int64_t expert = 0;
    convert_elements(&expert, FileDType::kI64, table.data + i * file_dtype_bytes(table.dtype), table.dtype, 1);
    if (expert >= 0 && expert < num_experts) continue;
    problems.push_back(
        fmt::format("wrong value: {} element {} is expert {}, the model has {}", table.name, i, expert, num_experts));
    return;
  }
}

std::vector<std::string> check_tables(const WeightSource::Fit& fit) {
  constexpr std::string_view kTable = "tid2eid";
  std::unordered_map<std::string_view, int64_t> num_experts;  // by the name of the gate
  for (const auto& [tensor, parameter] : fit.pieces)
    if (parameter->name.ends_with(".gate.weight")) num_experts[parameter->name] = parameter->shape[0];
  std::vector<std::string> problems;
  for (const auto& [tensor, parameter] : fit.pieces) {
    if (!parameter->name.ends_with(kTable)) continue;
    const std::string gate = parameter->name.substr(0, parameter->name.size() - kTable.size()) + "weight";
    if (const auto at = num_experts.find(gate); at != num_experts.end())
      check_expert_table(*tensor->encoded.weight, at->second, problems);
  }
  return problems;
}

void refuse_non_finite(const EncodedTensor& tensor, int64_t row_begin, int64_t row_end) {
  const NonFinite found = find_non_finite(tensor, row_begin, row_end);
  if (found.count == 0) return;
  fail(ErrorCode::kCorrupt,
       "tensor {} ({}): element [{}, {}] is not a finite number; the file is damaged or the model "
       "diverged",
       tensor.weight->name, tensor.to_string(), found.first / tensor.num_columns(), found.first % tensor.num_columns());
}

// Elements [begin, begin + view.size()) of a rank's part of a parameter, and where they are kept.
struct Target {
  View view;  // flat
  int64_t begin = 0;

  int64_t end() const { return begin + view.size(); }
};

Target value_of(const Parameter& p) {
  const View value = p.value_piece.defined() ? p.owned_value() : p.value;
  return {value.reshape({value.size()}), p.value_piece.defined() ? p.owned_begin() : 0};
}

// Undefined where the value is the weight of record.
Target master_of(const Parameter& p) {
  if (!p.master.defined() || p.master.raw() == p.owned_value().raw()) return {};
  return {p.master.reshape({p.master.size()}), p.owned_begin()};
}

// Which rows of a stored tensor are elements of a rank's part, and from which element on.
struct Rows {
  int64_t begin, end;  // of the tensor
  int64_t at = 0;      // element of the part; < 0: elements in front of it

  Rows(const EncodedTensor& from, const TensorName& name, const Parameter& p) : begin(0), end(from.num_rows()) {
    const Shape& whole = p.whole_shape();
    if (whole == p.shape) {
      at = part_of(View(nullptr, p.dtype, p.shape), name).offset;
      return;
    }
    CHECK(p.part.dim == 0, p.name, p.part.dim);
    if (whole.rank() == 1) {
      at = -p.part.begin;  // one row
    } else if (name.part == Part::kWhole) {
      const int64_t rows_each = end / whole[0];
      begin = p.part.begin * rows_each, end = begin + p.shape[0] * rows_each;
    } else {
      TensorName local = name;
      local.expert -= p.part.begin;
      at = part_of(View(nullptr, p.dtype, p.shape), local).offset;
    }
  }
};

// Decodes tensors into device memory by chunks of rows.
class Filler {
 public:
  explicit Filler(layers::Ctx& ctx) : ctx_(ctx) {}

  // Fills what the rank keeps of the rows. Returns the number of rows read.
  int64_t fill(const EncodedTensor& from, Rows rows, const Parameter& p) {
    const Target value = value_of(p), master = master_of(p);
    const bool is_apart = master.view.defined();
    const int64_t num_columns = std::max<int64_t>(from.num_columns(), 1);
    // Rows in front of, and behind, what is kept.
    const int64_t first = is_apart ? std::min(value.begin, master.begin) : value.begin;
    const int64_t last = is_apart ? std::max(value.end(), master.end()) : value.end();
    const int64_t before = std::clamp<int64_t>((first - rows.at) / num_columns, 0, rows.end - rows.begin);
    rows.begin += before, rows.at += before * num_columns;
    rows.end = std::clamp(rows.begin + (last - rows.at + num_columns - 1) / num_columns, rows.begin, rows.end);

    const int64_t chunk = std::max<int64_t>(kChunkElements / num_columns, 1);
    for (int64_t begin = rows.begin; begin < rows.end; begin += chunk) {
      const int64_t end = std::min(begin + chunk, rows.end), at = rows.at + (begin - rows.begin) * num_columns;
      decode(from, begin, end, is_apart ? master.view.dtype : value.view.dtype,
             is_apart ? value.view.dtype : DType::kNone);
      put(value, at, is_apart ? narrow_ : wide_);
      if (is_apart) put(master, at, wide_);
    }
    return rows.end - rows.begin;
  }

 private:
  // Rows into wide_, and from there into narrow_ unless its dtype is kNone: the same numbers as decoded on its own, as
  // 16 bits are always rounded from f32.
  void decode(const EncodedTensor& from, int64_t begin, int64_t end, DType wide, DType narrow) {
    const int64_t num_columns = from.num_columns(), size = (end - begin) * num_columns;
    wide_.resize(static_cast<size_t>(size * dtype_bytes(wide)));
    narrow_.resize(static_cast<size_t>(size * dtype_bytes(narrow)));
    parallel_for(end - begin, std::max<int64_t>(kThreadElements / num_columns, 1),
                 [&](int64_t first, int64_t last, int) {
                   refuse_non_finite(from, begin + first, begin + last);
                   std::byte* rows = wide_.data() + first * num_columns * dtype_bytes(wide);
                   decode_rows(from, begin + first, begin + last, rows, file_dtype(wide));
                   if (narrow != DType::kNone)
                     convert_elements(narrow_.data() + first * num_columns * dtype_bytes(narrow), file_dtype(narrow),
                                      rows, file_dtype(wide), (last - first) * num_columns);
                 });
  }

  // Those of the elements, the first of which is number `at` of the part, that the target keeps.
  void put(const Target& target, int64_t at, const std::vector<std::byte>& elements) {
    const int64_t bytes = dtype_bytes(target.view.dtype), count = static_cast<int64_t>(elements.size()) / bytes;
    const int64_t begin = std::max(at, target.begin), end = std::min(at + count, target.end());
    if (begin >= end) return;
    ctx_.device.copy_to_device(ctx_.stream, target.view.rows(begin - target.begin, end - target.begin),
                               elements.data() + (begin - at) * bytes);
  }

  layers::Ctx& ctx_;
  std::vector<std::byte> wide_, narrow_;
};

}  // namespace

void WeightSource::refuse_misfits(const Fit& fit) const {
  constexpr size_t kMaxShown = 20;
  if (fit.misfits.empty()) return;
  std::string text;
  for (size_t i = 0; i < std::min(kMaxShown, fit.misfits.size()); ++i) text += "\n  " + fit.misfits[i];
  if (fit.misfits.size() > kMaxShown) text += fmt::format("\n  and {} more", fit.misfits.size() - kMaxShown);
  fail(ErrorCode::kCorrupt, "{}: the weights do not fit config.json; {} tensors are wrong:{}", dir_.string(),
       fit.misfits.size(), text);
}

LoadReport WeightSource::load(layers::Ctx& ctx, const Fit& fit) const {
  refuse_misfits(fit);
  refuse_misfits({{}, check_tables(fit), {}, 0});
  LoadReport report{0, 0, 0, fit.num_skipped, fit.missing};
  Filler filler(ctx);
  for (const auto& [tensor, parameter] : fit.pieces) {
    const EncodedTensor& from = tensor->encoded;
    const int64_t rows = filler.fill(from, Rows(from, *tensor->name, *parameter), *parameter);
    release_pages(*from.weight);
    if (from.scale) release_pages(*from.scale);
    ++report.num_tensors;
    report.num_quantised += from.encoding != Encoding::kPlain;
    report.num_bytes += from.num_rows() == rows ? from.num_bytes() : from.num_bytes() / from.num_rows() * rows;
  }
  return report;
}

}  // namespace temper::checkpoint
