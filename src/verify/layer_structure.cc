#include "verify/layer_structure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace temper::verify {
namespace {

using checkpoint::EncodedTensor;
using checkpoint::Encoding;
using checkpoint::FileDType;
using checkpoint::Part;

constexpr double kDeadOfMedian = 1e-3;                 // an expert below this part of the median is dead
constexpr double kSmallNorm = 1e-3, kLargeNorm = 1e2;  // rms of a norm's weights beyond which we say so
constexpr double kLargeBias = 100;                     // scores are of the order of 1
constexpr int64_t kTableRows = 1 << 14;

const char* part_name(Part part) {
  switch (part) {
    case Part::kGate:
      return "w1";
    case Part::kUp:
      return "w3";
    case Part::kDown:
      return "w2";
    case Part::kWhole:
      break;
  }
  return "matrices";
}

// "[3, 17]": the place of a row-major index.
std::string place(const std::vector<int64_t>& shape, int64_t index) {
  std::string text;
  for (auto dim = shape.rbegin(); dim != shape.rend(); ++dim) {
    text = fmt::format("{}{}{}", index % *dim, text.empty() ? "" : ", ", text);
    index /= *dim;
  }
  return "[" + text + "]";
}

}  // namespace

std::string encoding_name(const EncodedTensor& tensor) {
  if (tensor.encoding == Encoding::kFp8) return "FP8";
  return tensor.encoding == Encoding::kFp4 ? "FP4" : std::string(checkpoint::file_dtype_name(tensor.weight->dtype));
}

LayerStructure::LayerStructure(int64_t layer, const model::Config& config, Findings& findings)
    : layer_(layer), config_(config), findings_(findings) {}

Statistics LayerStructure::add(const Weights::Piece& piece) {
  ++num_tensors_;
  num_bytes_ += piece.tensor->encoded.num_bytes();
  encodings_.insert(encoding_name(piece.tensor->encoded));
  const std::string& name = piece.parameter->name;
  if (name.ends_with(".tid2eid")) {
    return check_hash_table(piece);
  }
  if (piece.tensor->encoded.scale) check_scale(piece);
  const Statistics statistics = add_numbers(piece);
  num_bad_ += statistics.num_bad();
  if (statistics.num_bad() > 0)
    findings_.fail(layer_, piece.tensor->stored_name(),
                   fmt::format("{} NaN and {} infinite elements of {}, the first at {}", statistics.num_nan,
                               statistics.num_infinite, statistics.count,
                               place(piece.tensor->encoded.shape, statistics.first_bad)));
  if (name.ends_with("mlp.gate.weight")) check_router(piece);
  check_vector(piece, statistics);
  return statistics;
}

Statistics LayerStructure::add_numbers(const Weights::Piece& piece) {
  if (piece.parameter->name.find("mlp.experts.") == std::string::npos)
    return measure_rows(piece.tensor->encoded, 0, piece.tensor->encoded.num_rows());
  Statistics total;
  add_experts(piece, total);
  return total;
}

void LayerStructure::add_experts(const Weights::Piece& piece, Statistics& total) {
  const int64_t E = piece.parameter->shape[0];
  experts_.resize(static_cast<size_t>(E));
  const bool is_stack = piece.tensor->name->part == Part::kWhole;
  const int64_t count = is_stack ? E : 1, rows = piece.tensor->encoded.num_rows() / count;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t expert = is_stack ? i : piece.tensor->name->expert;
    const Statistics statistics = measure_rows(piece.tensor->encoded, i * rows, (i + 1) * rows);
    experts_[static_cast<size_t>(expert)].add(statistics);
    total.add(statistics);
    const char* what = is_stack ? (piece.parameter->name.ends_with("down_proj") ? "w2" : "w1 and w3")
                                : part_name(piece.tensor->name->part);
    const std::string here = fmt::format("{} of expert {}", what, expert);
    const auto [at, is_new] = expert_hash_.emplace(hash_rows(piece.tensor->encoded, i * rows, (i + 1) * rows), here);
    // Dead experts are equal, too, but that is not what is wrong with them.
    if (is_new || statistics.num_zero == statistics.count) continue;
    if (num_equal_++ == 0) first_equal_ = fmt::format("{} is byte for byte {}", here, at->second);
  }
}

void LayerStructure::check_scale(const Weights::Piece& piece) {
  const checkpoint::StoredTensor& scale = *piece.tensor->encoded.scale;
  const ScaleStatistics statistics = measure_scales(scale);
  if (statistics.num_bad() > 0)
    findings_.fail(
        layer_, scale.name,
        fmt::format("{} NaN (E8M0: 255) and {} zero (E8M0: 0) scales of {}, the first at {}", statistics.num_nan,
                    statistics.num_zero, statistics.count, place(scale.shape, statistics.first_bad)));
  if (statistics.num_extreme > 0)
    findings_.note(layer_, scale.name,
                   fmt::format("{} of {} scales are outside 2^-100 to 2^60 (blocks of zeros have such)",
                               statistics.num_extreme, statistics.count));
}

void LayerStructure::check_router(const Weights::Piece& piece) {
  const int64_t E = piece.tensor->encoded.num_rows();
  for (int64_t expert = 0; expert < E; ++expert) {
    const double norm = std::sqrt(measure_rows(piece.tensor->encoded, expert, expert + 1).sum_squares);
    router_row_min_ = std::fmin(router_row_min_, norm), router_row_max_ = std::fmax(router_row_max_, norm);
    if (norm == 0)
      findings_.fail(layer_, piece.tensor->stored_name(), fmt::format("row {}, of expert {}, is zero", expert, expert));
  }
}

Statistics LayerStructure::check_hash_table(const Weights::Piece& piece) {
  const int64_t V = piece.tensor->encoded.num_rows(), K = piece.tensor->encoded.num_columns(),
                E = config_.n_routed_experts;
  int64_t num_outside = 0, num_repeated = 0;
  std::string first;
  Statistics table;
  table.count = piece.tensor->encoded.size();
  std::vector<int64_t> rows;
  for (int64_t begin = 0; begin < V; begin += kTableRows) {
    const int64_t end = std::min(begin + kTableRows, V);
    rows.resize(static_cast<size_t>((end - begin) * K));
    checkpoint::decode_rows(piece.tensor->encoded, begin, end, rows.data(), FileDType::kI64);
    for (int64_t row = 0; row < end - begin; ++row) {
      int64_t* experts = rows.data() + row * K;
      for (int64_t k = 0; k < K; ++k) {
        const auto expert = static_cast<double>(experts[k]);
        table.min = std::min(table.min, expert), table.max = std::max(table.max, expert);
        table.num_zero += expert == 0, table.sum_squares += expert * expert;
        if (experts[k] >= 0 && experts[k] < E) continue;
        if (num_outside++ == 0) first = fmt::format("token {} slot {} is expert {}", begin + row, k, experts[k]);
      }
      std::sort(experts, experts + K);
      num_repeated += std::adjacent_find(experts, experts + K) != experts + K;
    }
  }
  if (num_outside > 0)
    findings_.fail(layer_, piece.tensor->stored_name(),
                   fmt::format("{} of {} entries are none of the {} experts; {}", num_outside, V * K, E, first));
  if (num_repeated > 0)
    findings_.note(layer_, piece.tensor->stored_name(),
                   fmt::format("{} of {} tokens name an expert more than once", num_repeated, V));
  return table;
}

void LayerStructure::check_vector(const Weights::Piece& piece, const Statistics& statistics) {
  const std::string& name = piece.parameter->name;
  if (name.ends_with("e_score_correction_bias")) {
    bias_min_ = statistics.min, bias_max_ = statistics.max;
    if (std::max(-bias_min_, bias_max_) > kLargeBias)
      findings_.note(layer_, piece.tensor->stored_name(),
                     fmt::format("correction biases from {:.3g} to {:.3g} against scores of the order of 1", bias_min_,
                                 bias_max_));
  }
  if (!name.ends_with("norm.weight")) return;
  const double rms = statistics.rms();
  if (rms == 0 && statistics.num_bad() == 0)
    findings_.fail(layer_, piece.tensor->stored_name(), "a norm whose weights are all zero");
  else if (rms < kSmallNorm || rms > kLargeNorm)
    findings_.note(layer_, piece.tensor->stored_name(), fmt::format("a norm whose weights have rms {:.3g}", rms));
}

void LayerStructure::finish() {
  if (num_equal_ > 0)
    findings_.fail(
        layer_, "experts",
        fmt::format("{}{}", first_equal_,
                    num_equal_ > 1 ? fmt::format("; {} matrices of this layer repeat another one", num_equal_) : ""));
  for (const Statistics& expert : experts_)
    if (expert.count > 0) expert_rms_.push_back(expert.rms());
  std::sort(expert_rms_.begin(), expert_rms_.end());
  if (expert_rms_.empty()) return;
  const double median = expert_rms_[expert_rms_.size() / 2];
  for (size_t e = 0; e < experts_.size(); ++e)
    if (experts_[e].count > 0 && experts_[e].rms() <= kDeadOfMedian * median)
      findings_.fail(layer_, fmt::format("expert {}", e),
                     fmt::format("dead: rms {:.3g} of its weights, {:.3g} in the median expert of the layer",
                                 experts_[e].rms(), median));
}

nlohmann::json LayerStructure::to_json() const {
  nlohmann::json out = {{"layer", layer_},
                        {"tensors", num_tensors_},
                        {"bytes", num_bytes_},
                        {"non_finite", num_bad_},
                        {"encodings", encodings_}};
  if (!expert_rms_.empty()) {
    auto rms = nlohmann::json::array();
    for (const Statistics& expert : experts_) rms.push_back(expert.rms());
    out["expert_rms"] = rms;
  }
  if (!std::isnan(router_row_min_)) out["router_row_norm"] = {router_row_min_, router_row_max_};
  if (!std::isnan(bias_min_)) out["router_bias"] = {bias_min_, bias_max_};
  return out;
}

}  // namespace temper::verify
