// A weight of the model and everything that trains it.
#pragma once

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

struct Parameter {
  std::string name;  // name in transformers' DeepseekV4ForCausalLM, e.g. "model.layers.0.self_attn.sinks"
  Shape shape;       // of this rank's part
  Part part;
  DType dtype = DType::kNone;     // of value: act for matrices, acc for vectors and mHC, i64 for tid2eid
  Init init = Init::kNormal;      // how a model that is not loaded starts (architecture page 8)
  bool decay = false;             // weight decay applies (matrices; never norms, biases, sinks, position biases)
  bool grad_by_products = false;  // nothing but products (Linear, the experts') adds to grad
  bool trainable = true;          // false: buffers (correction bias, tid2eid), indexer tensors, what the run froze

  const Shape& whole_shape() const { return part.whole.rank() > 0 ? part.whole : shape; }

  View value;   // what the layers compute with
  View master;  // acc; the weight of record. The same memory as value when the dtypes agree, undefined for buffers
  View grad;    // acc, accumulated over a step; undefined when not trainable
  View m, v;    // acc, AdamW moments; undefined when not trainable or when the run does not train

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
