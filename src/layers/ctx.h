// What every layer is handed: the backend's ops, the stream, and the dtypes of the run. Built in one place, passed by
// reference; there are no globals.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "backend/ops.h"
#include "comm/comm.h"
#include "comm/comm_queue.h"

namespace temper::layers {

// kFp64 runs on the scalar reference only and is the judge of the others.
enum class Precision : uint8_t { kFp64, kFp32, kBf16 };

// How a layer's discrete choices (experts, index entries) come about.
struct ChoiceRule {
  // The chosen rows are there already and are only read: by recompute, which must take the route of the first time, and
  // where all of them are given from outside (a rollout's record, the choices of older weights).
  bool read = false;
  // i32, of the shape of the chosen rows, or undefined: a row whose first value is >= 0 replaces what is computed.
  View given;
};

// The ranks that work with this one, by mesh axis; null: this rank has the axis to itself.
struct Groups {
  comm::Comm* world = nullptr;
  comm::Comm* dp = nullptr;  // micro-batches are dealt over it
  comm::Comm* pp = nullptr;  // layers are cut over it; its gradients go the other way in a group of their own
  comm::Comm* pp_back = nullptr;
  comm::Comm* ep = nullptr;    // experts are spread over it
  comm::Comm* cp = nullptr;    // documents are cut over it
  comm::Comm* tp = nullptr;    // heads, output groups and the vocabulary are cut over it
  comm::Comm* data = nullptr;  // dp, cp and tp together: the ranks that share out a step's rows
  comm::Comm* ep_beside = nullptr;  // with Ctx::beside: ep again, for rows that travel there
};

struct Ctx;
// Work that forms the gradients of matrices, put off.
using WeightWork = std::vector<std::function<void(Ctx&)>>;

struct Ctx {
  const backend::OpTable& ops;
  const backend::DeviceTable& device;
  backend::Stream* stream;
  DType act;  // activations and matrices of parameters
  DType acc;  // accumulation, vectors of parameters, gradients of parameters
  // The block that runs, for whoever watches the ops: its number, the prediction block's being the last; -1 outside.
  int64_t layer = -1;
  Groups groups = {};
  // Where collectives run beside computation; null: nowhere, they run on `stream`.
  comm::CommQueue* beside = nullptr;
  // Where weight_work() leaves its work; null: it is done at once.
  WeightWork* later = nullptr;
};

// Does what forms the gradient of a matrix, or leaves it for a later pass, which runs it in the same order. What it
// reads must then be there still: saved by forward, or in memory of Dtypes::operands.
template <class Work>
void weight_work(Ctx& ctx, Work work) {
  if (ctx.later) {
    ctx.later->emplace_back(std::move(work));
  } else {
    work(ctx);
  }
}

// While it lives, ops belong to a block.
class LayerScope {
 public:
  LayerScope(Ctx& ctx, int64_t layer) : ctx_(ctx), before_(ctx.layer) { ctx_.layer = layer; }
  LayerScope(const LayerScope&) = delete;
  LayerScope& operator=(const LayerScope&) = delete;
  ~LayerScope() { ctx_.layer = before_; }

 private:
  Ctx& ctx_;
  int64_t before_;
};

inline DType act_dtype(Precision precision) {
  return precision == Precision::kFp64 ? DType::kF64 : precision == Precision::kFp32 ? DType::kF32 : DType::kBF16;
}
inline DType acc_dtype(Precision precision) { return precision == Precision::kFp64 ? DType::kF64 : DType::kF32; }

}  // namespace temper::layers
