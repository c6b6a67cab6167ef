// Looks at everything that the ops of a pass read and write: the first value that is not finite, and the size of every
// output.
//
//   ValueCheck check(ctx, names, data, num_layers, place);
//   backend::WatchedBackend watched(inner, check, ctx.stream);   // the pass runs on it
//
// Slow: every operand is brought to the host and read element by element.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backend/watched.h"
#include "train/bad_value.h"
#include "train/row_origins.h"
#include "train/tensor_names.h"

namespace temper::train {

// The instruction and the block that an op belongs to.
struct CallPlace {
  std::string instruction;
  int64_t micro_batch = -1, layer = -1;
};

// One output of one op call.
struct OpStatistic {
  CallPlace place;
  backend::OpId op;
  std::string operand, tensor;  // name in ops.def; in the Book
  int64_t num_elements = 0, num_nonfinite = 0;
  double largest = 0, rms = 0;           // of the finite ones
  std::vector<int64_t> index = {};       // of the largest
  double value = 0;                      // the largest, with its sign
  std::optional<TokenPlace> token = {};  // of the largest
};

class ValueCheck : public backend::OpWatcher {
 public:
  // ctx: where tensors can be read. place: of the op that is about to run. num_layers: main blocks.
  ValueCheck(const layers::Ctx& ctx, const TensorNames& names, const data::LoaderStep& data, int64_t num_layers,
             std::function<CallPlace()> place);

  void before(const backend::OpCall& call) override;
  void after(const backend::OpCall& call) override;

  const std::optional<BadValue>& first_bad() const { return first_bad_; }
  const std::vector<OpStatistic>& statistics() const { return statistics_; }

 private:
  std::vector<int32_t> rows_of(const View& view) const;
  OpStatistic look(const backend::OpCall& call, const backend::Operand& operand, std::vector<int64_t>& first_nonfinite,
                   double& first_value) const;
  void blame(const backend::OpCall& call, const backend::Operand& operand, bool was_read, std::vector<int64_t> index,
             double value);
  std::optional<TokenPlace> token_of(const backend::OpCall& call, const backend::Operand& operand,
                                     const std::vector<int64_t>& index) const;

  layers::Ctx ctx_;
  const TensorNames& names_;
  const data::LoaderStep& data_;
  int64_t num_layers_;
  std::function<CallPlace()> current_;
  CallPlace place_;
  RowOrigins origins_;
  std::vector<std::string> reads_;  // of the call that runs
  std::vector<OpStatistic> statistics_;
  std::optional<BadValue> first_bad_;
};

}  // namespace temper::train
