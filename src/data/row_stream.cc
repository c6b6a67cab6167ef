#include "data/row_stream.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/philox.h"
#include "data/packing.h"

namespace temper::data {

RowStream::RowStream(std::vector<int64_t> lengths, const RowStreamOptions& options)
    : lengths_(std::move(lengths)), options_(options) {
  if (lengths_.empty()) fail(ErrorCode::kInvalidArgument, "there are no examples to train on");
  if (options_.row_tokens < 2 || options_.window_examples < 1 || options_.num_epochs < 0)
    fail(ErrorCode::kInvalidArgument,
         "cannot pack rows of {} tokens from windows of {} examples for {} epochs; at least 2, 1 and 0 (endless)",
         options_.row_tokens, options_.window_examples, options_.num_epochs);
  const auto longest = std::max_element(lengths_.begin(), lengths_.end());
  if (*longest > options_.row_tokens)
    fail(ErrorCode::kInvalidArgument, "example {} has {} tokens, a row {}: cut or drop it when reading",
         longest - lengths_.begin(), *longest, options_.row_tokens);
}

int64_t RowStream::num_windows() const {
  return (static_cast<int64_t>(lengths_.size()) + options_.window_examples - 1) / options_.window_examples;
}

std::vector<int64_t> RowStream::order_of(int64_t epoch) const {
  std::vector<int64_t> order(lengths_.size());
  std::iota(order.begin(), order.end(), 0);
  if (!options_.shuffle) return order;
  const Philox random{options_.seed, RandomPurpose::kShuffle};
  for (size_t i = order.size() - 1; i > 0; --i)
    std::swap(order[i], order[random.below(static_cast<uint64_t>(epoch), i, i + 1)]);
  return order;
}

std::vector<std::vector<int64_t>> RowStream::rows_of(const std::vector<int64_t>& order, int64_t epoch,
                                                     int64_t window) const {
  const int64_t begin = window * options_.window_examples;
  const int64_t end = std::min<int64_t>(begin + options_.window_examples, static_cast<int64_t>(order.size()));
  std::vector<int64_t> lengths;
  for (int64_t i = begin; i < end; ++i) lengths.push_back(lengths_[static_cast<size_t>(order[static_cast<size_t>(i)])]);
  auto rows = pack_best_fit(lengths, options_.row_tokens);
  for (auto& row : rows) {
    for (int64_t& index : row) index = order[static_cast<size_t>(begin + index)];
  }
  if (!options_.shuffle) return rows;
  // Draws of the epoch's own shuffle have indices below the number of examples; a window has no more rows than
  // examples.
  const Philox random{options_.seed, RandomPurpose::kShuffle};
  const auto first_draw = static_cast<uint64_t>(order.size()) + static_cast<uint64_t>(begin);
  for (size_t i = rows.size() - 1; i > 0; --i)
    std::swap(rows[i], rows[random.below(static_cast<uint64_t>(epoch), first_draw + i, i + 1)]);
  return rows;
}

void RowStream::load() {
  if (loaded_epoch_ != position_.epoch) {
    order_ = order_of(position_.epoch);
    loaded_epoch_ = position_.epoch;
    loaded_window_ = -1;
  }
  if (loaded_window_ != position_.window) {
    rows_ = rows_of(order_, position_.epoch, position_.window);
    loaded_window_ = position_.window;
  }
}

std::vector<int64_t> RowStream::next() {
  if (options_.num_epochs > 0 && position_.epoch >= options_.num_epochs) return {};
  load();
  std::vector<int64_t> row = rows_[static_cast<size_t>(position_.row)];
  if (++position_.row == static_cast<int64_t>(rows_.size())) {
    position_.row = 0;
    if (++position_.window == num_windows()) {
      position_.window = 0;
      ++position_.epoch;
    }
  }
  return row;
}

void RowStream::seek(RowPosition position) {
  const bool at_end = options_.num_epochs > 0 && position.epoch >= options_.num_epochs;
  bool is_possible =
      position.epoch >= 0 && position.window >= 0 && position.window < num_windows() && position.row >= 0;
  if (at_end) is_possible = position == RowPosition{options_.num_epochs, 0, 0};
  if (is_possible && !at_end) {
    position_ = position;
    load();
    is_possible = position.row < static_cast<int64_t>(rows_.size());
  }
  if (!is_possible)
    fail(ErrorCode::kInvalidArgument, "the data have no position epoch {}, window {}, row {}", position.epoch,
         position.window, position.row);
  position_ = position;
}

double RowStream::epochs_read() const {
  double examples = static_cast<double>(position_.window * options_.window_examples);
  if (position_.row > 0) {
    const double in_window = std::min<double>(static_cast<double>(options_.window_examples),
                                              static_cast<double>(lengths_.size()) - examples);
    examples += in_window * static_cast<double>(position_.row) / static_cast<double>(rows_.size());
  }
  return static_cast<double>(position_.epoch) + examples / static_cast<double>(lengths_.size());
}

int64_t RowStream::count_rows(int64_t epoch) const {
  const std::vector<int64_t> order = order_of(epoch);
  int64_t rows = 0;
  for (int64_t window = 0; window < num_windows(); ++window)
    rows += static_cast<int64_t>(rows_of(order, epoch, window).size());
  return rows;
}

}  // namespace temper::data
