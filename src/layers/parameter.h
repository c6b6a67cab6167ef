// A weight of the model and everything that trains it.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tensor/book.h"

namespace temper::layers {

enum class Init : uint8_t { kNormal, kOnes, kZeros, kHashTable };

// Which part of the tensor of its name a rank has: [begin, begin + shape[dim]) of one dim of the whole.
struct Part {
  Shape whole;  // of rank 0: the rank has all of it
  int dim = 0;
  int64_t begin = 0;
};

// How the ranks that have equal parts of a parameter share its update: rank r has the r-th of `size` equal pieces of
// the part's elements, in memory order; the last pieces may be shorter, or empty. Where whole values or gradients are
// exchanged, memory is there for all pieces in full.
struct Share {
  static constexpr int64_t kPieces = 64;          // a share that divides it ends where a larger one ends
  static constexpr int64_t kPieceAlignment = 16;  // elements

  int64_t rank = 0, size = 1;

  // Elements of a piece of a part of n elements.
  int64_t piece(int64_t n) const {
    if (size == 1) return n;
    const int64_t unit = kPieces % size == 0 ? kPieces : size;
    return (n + unit * kPieceAlignment - 1) / (unit * kPieceAlignment) * kPieceAlignment * (unit / size);
  }
  int64_t begin(int64_t n) const { return std::min(n, rank * piece(n)); }
  int64_t count(int64_t n) const { return std::min(piece(n), n - begin(n)); }
};

struct Parameter {
  std::string name;  // name in transformers' DeepseekV4ForCausalLM, e.g. "model.layers.0.self_attn.sinks"
  Shape shape;       // of this rank's part
  Part part;
  DType dtype = DType::kNone;     // of value: act for matrices, acc for vectors and mHC, i64 for tid2eid
  Init init = Init::kNormal;      // how a model that is not loaded starts (architecture page 8)
  bool decay = false;             // weight decay applies (matrices; never norms, biases, sinks, position biases)
  bool grad_by_products = false;  // nothing but products (Linear, the experts') adds to grad
  bool trainable = true;          // false: buffers (correction bias, tid2eid), indexer tensors, what the run froze
  // Where experts stand in another order than that of their numbers: the number at each place of all ranks.
  std::vector<int32_t> expert_at;

  const Shape& whole_shape() const { return part.whole.rank() > 0 ? part.whole : shape; }
  // Index in the whole tensor of the part's i-th element, both in memory order.
  int64_t whole_index(int64_t i) const {
    if (part.whole.rank() == 0) return i;
    int64_t inner = 1;
    for (int d = part.dim + 1; d < shape.rank(); ++d) inner *= shape[d];
    const int64_t row = i / inner, outer = row / shape[part.dim], place = part.begin + row % shape[part.dim];
    return (outer * part.whole[part.dim] + (expert_at.empty() ? place : expert_at[place])) * inner + i % inner;
  }

  View value;  // what the layers compute with
  View grad;   // acc, accumulated over a step; undefined when not trainable

  // What this rank updates: of a shared parameter one dim, the rank's elements; else the tensor in its shape.
  Share share;
  View master;  // acc; the weight of record. The same memory as value when the dtypes agree, undefined for buffers
  View m, v;    // acc, AdamW moments; undefined when not trainable or when the run does not train
  // Where only the rank's piece stays between a layer's uses (ZeRO 2 and 3): it. Else undefined.
  View value_piece, grad_piece;

  bool is_shared() const { return share.size > 1; }
  int64_t owned_begin() const { return share.begin(shape.size()); }
  int64_t num_owned() const { return share.count(shape.size()); }
  // This rank's elements of a view on the whole part.
  View owned(const View& part) const {
    if (!is_shared()) return part;
    const View flat = part.reshape({part.size()});
    return flat.rows(owned_begin(), owned_begin() + num_owned());
  }
  View owned_value() const { return value_piece.defined() ? value_piece.first(num_owned()) : owned(value); }
  View owned_grad() const { return grad_piece.defined() ? grad_piece.first(num_owned()) : owned(grad); }

  // grad counts as zero, whatever its memory holds: the first product of a step overwrites it, which saves a pass over
  // the memory of every gradient. From Model::zero_gradients to the end of the first Model::backward only.
  mutable bool grad_is_stale = false;
  // beta of the next product that adds to grad.
  double next_beta() const { return std::exchange(grad_is_stale, false) ? 0 : 1; }
};

using ParameterList = std::vector<Parameter*>;

// Dtypes of a run: act for activations and matrices, acc for accumulation and vectors of parameters.
struct Dtypes {
  DType act, acc;
  // Memory of the activations' gradients that matrices' gradients are formed from: scratch, since that follows at once;
  // saved tensors where it is put off (weight_work).
  TensorKind operands = TensorKind::kScratch;
};

// A matrix (or a stack of matrices): stored in act, decayed, normal start.
inline Parameter matrix(std::string name, Shape shape, Dtypes dtypes) {
  Parameter p;
  p.name = std::move(name), p.shape = shape, p.dtype = dtypes.act, p.decay = true, p.grad_by_products = true;
  return p;
}

// A vector or small tensor kept in acc and never decayed: norms, sinks, biases, mHC tensors.
inline Parameter fine_parameter(std::string name, Shape shape, Dtypes dtypes, Init init) {
  Parameter p;
  p.name = std::move(name), p.shape = shape, p.dtype = dtypes.acc, p.init = init;
  return p;
}

}  // namespace temper::layers
