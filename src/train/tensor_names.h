// What a stretch of memory is called: the Book's entry that a View lies in.
#pragma once

#include <string>

#include "tensor/book.h"

namespace temper::train {

class TensorNames {
 public:
  // The Book must be granted, and outlive this. num_layers: the prediction block is the layer behind them.
  TensorNames(const Book& book, int64_t num_layers) : book_(book), num_layers_(num_layers) {}

  // The entry that holds the View; where memory is shared, that of the layer (-1: of none) whose dtype and shape fit
  // best. nullptr: memory of no entry.
  const Book::Entry* find(const View& view, int64_t layer) const;
  // "model.layers.2.self_attn.o", "gradient of lm_head.weight", "memory without a name".
  std::string name(const View& view, int64_t layer) const;

 private:
  bool belongs(const std::string& name, int64_t layer) const;

  const Book& book_;
  int64_t num_layers_;
};

}  // namespace temper::train
