// The order in which examples are read: per epoch a shuffle, cut into windows, each window packed into rows.
//
// Everything is a function of (seed, epoch, window, row) and of the lengths, so a position is three numbers and any
// of them can be gone back to. The shuffle is Fisher-Yates on Philox(seed, kShuffle), step = epoch; the rows of a
// window are shuffled the same way, so that long documents do not come first.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace temper::data {

struct RowStreamOptions {
  int64_t row_tokens = 0;          // capacity of a row
  int64_t window_examples = 4096;  // examples packed together; more pack tighter, fewer stay nearer to the shuffle
  int64_t num_epochs = 1;          // 0 = endless
  uint64_t seed = 0;
  bool shuffle = true;
};

struct RowPosition {
  int64_t epoch = 0, window = 0, row = 0;  // the row to be read next
  bool operator==(const RowPosition&) const = default;
};

class RowStream {
 public:
  // Refuses (kInvalidArgument) no lengths, a length outside [1, row_tokens], options that are not positive.
  RowStream(std::vector<int64_t> lengths, const RowStreamOptions& options);

  // The examples of the next row; empty after the last epoch.
  std::vector<int64_t> next();

  RowPosition position() const { return position_; }

  // Refuses (kInvalidArgument) a position that this stream never has.
  void seek(RowPosition position);

  // Epochs read so far, with a fraction.
  double epochs_read() const;

  // Rows of one epoch; packs all of it.
  int64_t count_rows(int64_t epoch) const;

 private:
  std::vector<int64_t> order_of(int64_t epoch) const;
  std::vector<std::vector<int64_t>> rows_of(const std::vector<int64_t>& order, int64_t epoch, int64_t window) const;
  int64_t num_windows() const;
  void load();

  std::vector<int64_t> lengths_;
  RowStreamOptions options_;
  RowPosition position_;
  int64_t loaded_epoch_ = -1, loaded_window_ = -1;
  std::vector<int64_t> order_;              // of loaded_epoch_
  std::vector<std::vector<int64_t>> rows_;  // of loaded_window_
};

}  // namespace temper::data
