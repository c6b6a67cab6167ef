// Examples to the micro-batches of each step: shuffled, packed, read ahead by a thread, with an exact position.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/reader.h"
#include "data/row_stream.h"
#include "layers/token_layout.h"

namespace temper::data {

struct LoaderOptions {
  RowStreamOptions rows;
  int64_t micro_batches_per_step = 1;  // rows of one step; the last step of all may have fewer
};

// Where a loader stands, and what it has delivered so far. Part of the run state, as JSON:
//   {"step", "epoch", "window", "row", "num_rows", "num_tokens", "num_trained_tokens": integers,
//    "fingerprint": 16 hexadecimal digits of the examples, the capacity of a row, the window and the shuffle}
struct LoaderPosition {
  int64_t step = 0;
  RowPosition row;
  int64_t num_rows = 0, num_tokens = 0, num_trained_tokens = 0;
  std::string fingerprint;

  std::string to_json() const;
  // Refuses (kCorrupt) what is not such an object.
  static LoaderPosition from_json(std::string_view json);
  bool operator==(const LoaderPosition&) const = default;
};

// One optimizer step's worth of data.
struct LoaderStep {
  std::vector<layers::MicroBatch> micro_batches;
  std::vector<std::vector<const Example*>> documents;  // of each micro-batch, in its order; the loader's own
  int64_t num_tokens = 0;
  int64_t num_trained_tokens = 0;  // positions whose target is not -1
  double epoch = 0;                // epochs read when this step is done
};

// A row as a micro-batch: documents in the order given. targets[t] = tokens[t+1] where both are of one document and
// token t+1 is trained, else -1; weights[t] = the example's weight where there is a target, else 0.
layers::MicroBatch make_micro_batch(const std::vector<Example>& examples, const std::vector<int64_t>& row);

// The same examples and options give the same steps on any machine. The number of micro-batches per step may change
// between runs: positions are of rows.
class Loader {
 public:
  // Refuses what RowStream refuses, and fewer than 1 micro-batch per step.
  Loader(std::vector<Example> examples, const LoaderOptions& options);
  ~Loader();

  // Waits for the next step; false when all epochs are read, and `step` is then empty.
  bool next(LoaderStep& step);

  // After the last step that next() gave; what was read ahead does not count.
  LoaderPosition position() const;

  // Goes on from a position of a loader with the same examples and options, as that one would have gone on.
  // Refuses (kInvalidArgument) a position of other data or options.
  void restore(const LoaderPosition& position);

  // Steps of all epochs, counted by packing them; 0 if endless.
  int64_t count_steps() const;

  // Share of the capacity of the rows given so far that no token used.
  double padding_fraction() const;

  int64_t num_examples() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::data
