#include "layers/embedding.h"

#include <numeric>
#include <vector>

namespace temper::layers {

Embedding::Embedding(int64_t V, int64_t D, Dtypes dtypes, TensorPart part)
    : w(cut(matrix("model.embed_tokens.weight", {V, D}, dtypes), part)), D_(D), dtypes_(dtypes), part_(part) {
  w.grad_by_products = false;
}

void Embedding::declare_scratch(Book& book, int64_t max_tokens, bool train) {
  if (!part_.is_cut()) return;
  const ScratchScope scope(book);
  const int64_t P = part_.piece(max_tokens), N = part_.padded(max_tokens);
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, w.name + ":" + what, dtype, shape);
  };
  declare(scratch_.index_N, "index", DType::kI32, {N});
  declare(scratch_.x_ND, "x", dtypes_.act, {N, D_});
  declare(scratch_.x_PD, "own_x", dtypes_.act, {P, D_});
  if (!train) return;
  declare(scratch_.dx_ND, "dx", dtypes_.acc, {N, D_});
  declare(scratch_.dx_PD, "own_dx", dtypes_.acc, {P, D_});
}

// Of each token its row of w; -1 where another rank has it.
View Embedding::local_words(Ctx& ctx, std::span<const int32_t> tokens) const {
  std::vector<int32_t> words(tokens.begin(), tokens.end());
  for (int32_t& word : words) {
    const int64_t local = word - w.part.begin;
    word = local >= 0 && local < w.shape[0] ? static_cast<int32_t>(local) : -1;
  }
  const View index_T = scratch_.index_N.first(static_cast<int64_t>(words.size()));
  if (!words.empty()) ctx.device.copy_to_device(ctx.stream, index_T, words.data());
  return index_T;
}

void Embedding::forward(Ctx& ctx, View x_TMD, std::span<const int32_t> tokens, View token_T) const {
  if (!part_.is_cut()) return ctx.ops.embedding_forward(ctx.stream, x_TMD, w.value, token_T);
  const int64_t P = x_TMD.dim(0), M = x_TMD.dim(1);
  const View x_ND = scratch_.x_ND.first(static_cast<int64_t>(tokens.size())), x_PD = scratch_.x_PD.first(P);
  ctx.ops.gather_rows(ctx.stream, x_ND, w.value, local_words(ctx, tokens));
  add_pieces(ctx, part_, x_PD, x_ND, "embeddings");
  for (int64_t i = 0; i < M; ++i) ctx.ops.copy(ctx.stream, x_TMD.slice(1, i, i + 1), x_PD.reshape({P, 1, D_}));
}

void Embedding::backward(Ctx& ctx, View dx_TMD, std::span<const int32_t> tokens, View token_T) const {
  if (!w.grad.defined()) return;
  if (!part_.is_cut()) return ctx.ops.embedding_backward(ctx.stream, w.grad, dx_TMD, token_T);
  const int64_t P = dx_TMD.dim(0);
  const View dx_ND = scratch_.dx_ND.first(static_cast<int64_t>(tokens.size())), dx_PD = scratch_.dx_PD.first(P);
  // The sum over streams: as if every row were a word of its own.
  std::vector<int32_t> rows(P);
  std::iota(rows.begin(), rows.end(), 0);
  const View row_P = scratch_.index_N.first(P);
  if (P > 0) ctx.device.copy_to_device(ctx.stream, row_P, rows.data());
  ctx.ops.fill(ctx.stream, dx_PD, 0);
  ctx.ops.embedding_backward(ctx.stream, dx_PD, dx_TMD, row_P);
  gather_pieces(ctx, part_, dx_ND, dx_PD, "gradients of embeddings");
  ctx.ops.scatter_add_rows(ctx.stream, w.grad, dx_ND, local_words(ctx, tokens));
}

}  // namespace temper::layers
