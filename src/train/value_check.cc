#include "train/value_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/mtp.h"
#include "train/host_copy.h"

namespace temper::train {
namespace {

using backend::OpCall;
using backend::Operand;
using backend::OpId;
using backend::Role;

struct Scan {
  int64_t num_elements = 0, num_nonfinite = 0;
  double largest = 0, sum_squares = 0;
  double first_value = 0, largest_value = 0;
  std::vector<int64_t> first, largest_index;
};

// Every element of a host tensor, rows that are padding left out.
class Scanner {
 public:
  Scanner(const View& view, std::vector<Origin> rows)
      : view_(view), rows_(std::move(rows)), row_dim_(RowOrigins::row_dim(view)), index_(view.rank()) {}

  Scan run() {
    if (view_.size() > 0) visit(0, 0);
    return std::move(scan_);
  }

 private:
  void visit(int dim, int64_t offset) {
    if (dim == view_.rank()) return see(offset);
    for (index_[dim] = 0; index_[dim] < view_.dim(dim); ++index_[dim]) {
      if (dim == row_dim_ && !rows_.empty() && rows_[index_[dim]].token == Origin::kPadding) continue;
      visit(dim + 1, offset + index_[dim] * view_.strides[dim]);
    }
  }
  void see(int64_t offset) {
    const double value = float_at(view_, offset);
    ++scan_.num_elements;
    if (!std::isfinite(value)) {
      if (scan_.num_nonfinite++ == 0) scan_.first = index_, scan_.first_value = value;
      return;
    }
    scan_.sum_squares += value * value;
    if (std::abs(value) <= scan_.largest) return;
    scan_.largest = std::abs(value), scan_.largest_value = value, scan_.largest_index = index_;
  }

  const View& view_;
  std::vector<Origin> rows_;
  int row_dim_;
  std::vector<int64_t> index_;
  Scan scan_;
};

const View& streams_of(const OpCall& hc_pre_forward) {
  const auto found = std::find_if(hc_pre_forward.operands.begin(), hc_pre_forward.operands.end(),
                                  [](const Operand& operand) { return operand.name == "x_TMD"; });
  CHECK(found != hc_pre_forward.operands.end());
  return found->view;
}

// Workspace's contents are irrelevant before and after a call.
bool counts(const Operand& operand) { return is_float(operand.view) && operand.name != "workspace"; }

}  // namespace

ValueCheck::ValueCheck(const layers::Ctx& ctx, const TensorNames& names, const data::LoaderStep& data,
                       int64_t num_layers, std::function<CallPlace()> place)
    : ctx_(ctx), names_(names), data_(data), num_layers_(num_layers), current_(std::move(place)), origins_(ctx) {}

void ValueCheck::before(const OpCall& call) {
  place_ = current_();
  reads_.clear();
  // The later stages of a pipeline get the streams from another rank, by no op.
  if (call.id == OpId::hc_pre_forward && origins_.rows(streams_of(call)).empty())
    origins_.number(streams_of(call), rows_of(streams_of(call)));
  for (const Operand& operand : call.operands) {
    if (operand.role != Role::kIn || !counts(operand)) continue;
    std::vector<int64_t> first;
    double value = 0;
    const OpStatistic found = look(call, operand, first, value);
    reads_.push_back(fmt::format("{} (largest {:.3g})", found.tensor, found.largest));
    if (found.num_nonfinite > 0) blame(call, operand, true, std::move(first), value);
  }
}

// Positions in the micro-batch of the rows of a tensor that has one for each token; empty where it has others: many
// ranks have rows of a part of the micro-batch, or the places of experts.
std::vector<int32_t> ValueCheck::rows_of(const View& view) const {
  if (place_.micro_batch < 0) return {};
  const layers::MicroBatch& batch = data_.micro_batches[place_.micro_batch];
  std::vector<int32_t> rows(batch.tokens.size());
  std::iota(rows.begin(), rows.end(), 0);
  if (place_.layer >= num_layers_) rows = model::make_mtp_batch(batch).rows_R;
  return static_cast<int64_t>(rows.size()) == view.dim(0) ? rows : std::vector<int32_t>{};
}

void ValueCheck::after(const OpCall& call) {
  if (call.id == OpId::embedding_forward || call.id == OpId::router_hash) {
    origins_.number(call.operands[0].view, rows_of(call.operands[0].view));
  } else {
    origins_.follow(call);
  }
  for (const Operand& operand : call.operands) {
    if (operand.role == Role::kIn || !counts(operand)) continue;
    std::vector<int64_t> first;
    double value = 0;
    statistics_.push_back(look(call, operand, first, value));
    if (statistics_.back().num_nonfinite > 0) blame(call, operand, false, std::move(first), value);
  }
}

OpStatistic ValueCheck::look(const OpCall& call, const Operand& operand, std::vector<int64_t>& first_nonfinite,
                             double& first_value) const {
  const HostCopy host(ctx_, operand.view);
  Scan scan = Scanner(host.view(), origins_.rows(operand.view)).run();
  OpStatistic out{place_, call.id, std::string(operand.name), names_.name(operand.view, place_.layer)};
  out.num_elements = scan.num_elements, out.num_nonfinite = scan.num_nonfinite;
  out.largest = scan.largest, out.value = scan.largest_value, out.index = std::move(scan.largest_index);
  const int64_t num_finite = scan.num_elements - scan.num_nonfinite;
  out.rms = num_finite > 0 ? std::sqrt(scan.sum_squares / static_cast<double>(num_finite)) : 0;
  out.token = token_of(call, operand, out.index);
  first_nonfinite = std::move(scan.first), first_value = scan.first_value;
  return out;
}

std::optional<TokenPlace> ValueCheck::token_of(const OpCall& call, const Operand& operand,
                                               const std::vector<int64_t>& index) const {
  if (place_.micro_batch < 0 || index.empty()) return std::nullopt;
  if (call.id == OpId::embedding_backward && operand.role == Role::kInOut) {
    // Rows of the table are ids: the first token of that id.
    const auto& tokens = data_.micro_batches[place_.micro_batch].tokens;
    const auto at = std::find(tokens.begin(), tokens.end(), index[0]);
    if (at == tokens.end()) return std::nullopt;
    return token_place(data_, place_.micro_batch, at - tokens.begin());
  }
  const std::vector<Origin> rows = origins_.rows(operand.view);
  if (rows.empty()) return std::nullopt;
  const Origin& origin = rows[index[RowOrigins::row_dim(operand.view)]];
  if (origin.token < 0) return std::nullopt;
  return token_place(data_, place_.micro_batch, origin.token, origin.num_tokens);
}

void ValueCheck::blame(const OpCall& call, const Operand& operand, bool was_read, std::vector<int64_t> index,
                       double value) {
  if (first_bad_) return;
  BadValue& bad = first_bad_.emplace();
  bad.finding = "is not finite";
  bad.tensor = names_.name(operand.view, place_.layer);
  bad.value = value;
  bad.place = token_of(call, operand, index);
  bad.index = std::move(index);
  bad.instruction = place_.instruction, bad.layer = place_.layer;
  bad.op = backend::kOpNames[static_cast<int>(call.id)], bad.operand = operand.name;
  bad.was_read = was_read;
  bad.num_outputs_before = static_cast<int64_t>(statistics_.size());
  bad.reads = reads_;
}

}  // namespace temper::train
