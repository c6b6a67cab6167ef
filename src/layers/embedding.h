// Token embedding, in every residual stream of a token (architecture page 2; gradient 12.K).
//
//   x[t, i] = W[token_t];      dW[token_t] += sum_i dx[t, i]
//
// Vocabulary parallel: a rank looks the tokens of all rows up among its words, the others give 0; the sum over ranks
// goes to the rows' owners. Backward brings the gradients of all rows together, and takes those of its own words.
#pragma once

#include <span>

#include "layers/tensor_part.h"

namespace temper::layers {

class Embedding {
 public:
  Embedding(int64_t V, int64_t D, Dtypes dtypes, TensorPart part = {});

  void collect(ParameterList& list) { list.push_back(&w); }
  // max_tokens: all rows of the ranks that share the vocabulary.
  void declare_scratch(Book& book, int64_t max_tokens, bool train);

  // x_TMD: this rank's rows; tokens: all rows; token_T: this rank's, on the device.
  void forward(Ctx& ctx, View x_TMD, std::span<const int32_t> tokens, View token_T) const;
  // Accumulates from dx_TMD (acc); nothing where the embedding is frozen.
  void backward(Ctx& ctx, View dx_TMD, std::span<const int32_t> tokens, View token_T) const;

  Parameter w;  // [V, D], or this rank's words

 private:
  View local_words(Ctx& ctx, std::span<const int32_t> tokens) const;

  int64_t D_;
  Dtypes dtypes_;
  TensorPart part_;
  // Scratch among several ranks. N: all rows, with padding; P: this rank's.
  struct Scratch {
    View index_N;       // i32
    View x_ND, x_PD;    // act
    View dx_ND, dx_PD;  // acc
  } scratch_;
};

}  // namespace temper::layers
