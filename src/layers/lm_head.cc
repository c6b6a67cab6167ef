#include "layers/lm_head.h"

#include <algorithm>
#include <cmath>

namespace temper::layers {
namespace {

// Uploads host floats or doubles as the dtype of the view.
void upload(Ctx& ctx, View to, const std::vector<double>& values) {
  if (to.dtype == DType::kF64) {
    ctx.device.copy_to_device(ctx.stream, to, values.data());
  } else {
    ctx.device.copy_to_device(ctx.stream, to, std::vector<float>(values.begin(), values.end()).data());
  }
}

std::vector<double> download(Ctx& ctx, View from) {
  if (from.dtype == DType::kF64) {
    std::vector<double> values(from.size());
    ctx.device.copy_to_host(ctx.stream, values.data(), from);
    return values;
  }
  std::vector<float> values(from.size());
  ctx.device.copy_to_host(ctx.stream, values.data(), from);
  return {values.begin(), values.end()};
}

std::vector<int32_t> download_indices(Ctx& ctx, View from) {
  std::vector<int32_t> values(from.size());
  ctx.device.copy_to_host(ctx.stream, values.data(), from);
  return values;
}

}  // namespace

LmHead::LmHead(int64_t V, int64_t D, int64_t chunk, Dtypes dtypes, TensorPart part)
    : V_(V / part.size),
      D_(D),
      chunk_(chunk),
      dtypes_(dtypes),
      part_(part),
      head_{cut(matrix("lm_head.weight", {V, D}, dtypes), part)} {}

void LmHead::declare_saved(Book& book, Saved& saved, const std::string& name, int64_t max_tokens) const {
  const auto declare = [&](View& view, const char* what, DType dtype) {
    book.declare(&view, TensorKind::kInput, name + ":" + what, dtype, {max_tokens});
  };
  declare(saved.rows_R, "rows", DType::kI32);
  declare(saved.target_R, "target", DType::kI32);
  declare(saved.best_R, "best", DType::kI32);
  declare(saved.logp_R, "logp", dtypes_.acc);
  declare(saved.lse_R, "lse", dtypes_.acc);
  declare(saved.g_R, "dlogp", dtypes_.acc);
}

void LmHead::declare_scratch(Book& book, int64_t max_tokens, bool train) {
  const ScratchScope scope(book);
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, std::string("lm_head:") + what, dtype, shape);
  };
  declare(y_CD_, "y", dtypes_.act, {chunk_, D_});
  declare(logits_CV_, "logits", dtypes_.acc, {chunk_, V_});
  if (part_.is_cut()) {
    declare(y_TD_, "all_y", dtypes_.act, {part_.padded(max_tokens), D_});
    declare(exchange_.index_X, "index", DType::kI32, {2 * chunk_});
    declare(exchange_.best_SC, "all_best", DType::kI32, {part_.size * chunk_});
    declare(exchange_.mine_3C, "statistics", dtypes_.acc, {3 * chunk_});
    declare(exchange_.all_S3C, "all_statistics", dtypes_.acc, {part_.size * 3 * chunk_});
  }
  if (!train) return;
  declare(dlogits_CV_, "dlogits", dtypes_.act, {chunk_, V_});
  declare(dy_CD_, "dy", dtypes_.acc, {chunk_, D_});
  if (part_.is_cut()) declare(dy_TD_, "all_dy", dtypes_.acc, {part_.padded(max_tokens), D_});
}

View LmHead::all_rows(Ctx& ctx, View y_PD, int64_t T) const {
  if (!part_.is_cut()) return y_PD;
  const View y_TD = y_TD_.first(T);
  gather_pieces(ctx, part_, y_TD, y_PD, "rows of the head");
  return y_TD;
}

View LmHead::chunk_logits(Ctx& ctx, View y_TD, const Saved& saved, int64_t begin, int64_t end) const {
  const View y_CD = y_CD_.first(end - begin), logits_CV = logits_CV_.first(end - begin);
  ctx.ops.gather_rows(ctx.stream, y_CD, y_TD, saved.rows_R.rows(begin, end));
  head_.forward(ctx, logits_CV, y_CD);
  return logits_CV;
}

void LmHead::choose_rows(Ctx& ctx, std::span<const int32_t> targets, Saved& saved) const {
  saved.rows.clear();
  std::vector<int32_t> local;
  for (size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] < 0) continue;
    saved.rows.push_back(static_cast<int32_t>(t));
    const int64_t word = targets[t] - head_.w.part.begin;
    local.push_back(word >= 0 && word < V_ ? static_cast<int32_t>(word) : -1);
  }
  const auto R = static_cast<int64_t>(saved.rows.size());
  if (R == 0) return;
  ctx.device.copy_to_device(ctx.stream, saved.rows_R.first(R), saved.rows.data());
  ctx.device.copy_to_device(ctx.stream, saved.target_R.first(R), local.data());
}

// What logprob_forward says of the words of each rank becomes what it would say of all words.
void LmHead::join_vocabulary(Ctx& ctx, View logits_CV, const Saved& saved, int64_t begin, int64_t end) const {
  const int64_t C = end - begin, S = part_.size;
  std::vector<int32_t> best_C = download_indices(ctx, saved.best_R.rows(begin, end));
  const std::vector<int32_t> target_C = download_indices(ctx, saved.target_R.rows(begin, end));
  // The best word's logit and the target's; 0 for the target of another rank.
  std::vector<int32_t> index_X(2 * C);
  for (int64_t c = 0; c < C; ++c) {
    index_X[c] = static_cast<int32_t>(c * V_ + best_C[c]);
    index_X[C + c] = target_C[c] < 0 ? -1 : static_cast<int32_t>(c * V_ + target_C[c]);
  }
  const View mine_3C = exchange_.mine_3C.first(3 * C), all_S3C = exchange_.all_S3C.first(S * 3 * C);
  const View all_best_SC = exchange_.best_SC.first(S * C);
  ctx.device.copy_to_device(ctx.stream, exchange_.index_X.first(2 * C), index_X.data());
  ctx.ops.copy(ctx.stream, mine_3C.first(C), saved.lse_R.rows(begin, end));
  ctx.ops.gather_rows(ctx.stream, mine_3C.rows(C, 3 * C).reshape({2 * C, 1}), logits_CV.reshape({C * V_, 1}),
                      exchange_.index_X.first(2 * C));
  ctx.groups.tp->all_gather(ctx.stream, all_S3C, mine_3C, {"statistics of logits"});
  ctx.groups.tp->all_gather(ctx.stream, all_best_SC, saved.best_R.rows(begin, end), {"best words"});

  const std::vector<double> all = download(ctx, all_S3C);
  const std::vector<int32_t> all_best = download_indices(ctx, all_best_SC);
  std::vector<double> lse_C(C), logp_C(C);
  for (int64_t c = 0; c < C; ++c) {
    const auto of_rank = [&](int64_t r, int64_t what) { return all[(3 * r + what) * C + c]; };
    int64_t largest = 0, best = 0;
    double sum = 0, target = 0;
    for (int64_t r = 1; r < S; ++r) {
      if (of_rank(r, 0) > of_rank(largest, 0)) largest = r;
      if (of_rank(r, 1) > of_rank(best, 1)) best = r;
    }
    for (int64_t r = 0; r < S; ++r) {
      sum += std::exp(of_rank(r, 0) - of_rank(largest, 0));
      target += of_rank(r, 2);
    }
    lse_C[c] = of_rank(largest, 0) + std::log(sum);
    logp_C[c] = target - lse_C[c];
    best_C[c] = static_cast<int32_t>(best * V_ + all_best[best * C + c]);
  }
  upload(ctx, saved.lse_R.rows(begin, end), lse_C);
  upload(ctx, saved.logp_R.rows(begin, end), logp_C);
  ctx.device.copy_to_device(ctx.stream, saved.best_R.rows(begin, end), best_C.data());
}

void LmHead::logprobs(Ctx& ctx, View y_PD, std::span<const int32_t> targets, Saved& saved, std::vector<double>& logp_T,
                      std::vector<int32_t>& best_T, const Known& known) const {
  choose_rows(ctx, targets, saved);
  logp_T.assign(targets.size(), 0);
  best_T.assign(targets.size(), -1);
  const auto T = static_cast<int64_t>(targets.size()), R = static_cast<int64_t>(saved.rows.size());
  saved.backward_is_done = !known.dlogp_T.empty();
  View dy_TD;
  if (saved.backward_is_done) dy_TD = begin_backward(ctx, known.dy_PD, known.dlogp_T, saved);
  const View y_TD = R > 0 ? all_rows(ctx, y_PD, T) : View{};
  for (int64_t begin = 0; begin < R; begin += chunk_) {
    const int64_t end = std::min(R, begin + chunk_);
    const View logits_CV = chunk_logits(ctx, y_TD, saved, begin, end);
    ctx.ops.logprob_forward(ctx.stream, saved.logp_R.rows(begin, end), saved.lse_R.rows(begin, end),
                            saved.best_R.rows(begin, end), logits_CV, saved.target_R.rows(begin, end));
    if (part_.is_cut()) join_vocabulary(ctx, logits_CV, saved, begin, end);
    if (saved.backward_is_done) backward_chunk(ctx, dy_TD, logits_CV, saved, begin, end);
  }
  if (saved.backward_is_done) end_backward(ctx, known.dy_PD, dy_TD);
  if (R == 0) return;
  const auto logp = download(ctx, saved.logp_R.first(R));
  const auto best = download_indices(ctx, saved.best_R.first(R));
  for (int64_t r = 0; r < R; ++r) {
    logp_T[saved.rows[r]] = logp[r];
    best_T[saved.rows[r]] = best[r];
  }
}

View LmHead::begin_backward(Ctx& ctx, View dy_PD, std::span<const double> dlogp_T, const Saved& saved) const {
  const View dy_TD = part_.is_cut() ? dy_TD_.first(static_cast<int64_t>(dlogp_T.size())) : dy_PD;
  ctx.ops.fill(ctx.stream, dy_TD, 0);
  const auto R = static_cast<int64_t>(saved.rows.size());
  std::vector<double> g(R);
  for (int64_t r = 0; r < R; ++r) g[r] = dlogp_T[saved.rows[r]];
  if (R > 0) upload(ctx, saved.g_R.first(R), g);
  return dy_TD;
}

void LmHead::backward_chunk(Ctx& ctx, View dy_TD, View logits_CV, const Saved& saved, int64_t begin,
                            int64_t end) const {
  const View y_CD = y_CD_.first(end - begin), dlogits_CV = dlogits_CV_.first(end - begin);
  const View dy_CD = dy_CD_.first(end - begin);
  ctx.ops.logprob_backward(ctx.stream, dlogits_CV, logits_CV, saved.lse_R.rows(begin, end),
                           saved.target_R.rows(begin, end), saved.g_R.rows(begin, end));
  head_.backward_weight(ctx, dlogits_CV, y_CD);
  head_.backward_input(ctx, dy_CD, dlogits_CV, 0);
  ctx.ops.scatter_add_rows(ctx.stream, dy_TD, dy_CD, saved.rows_R.rows(begin, end));
}

void LmHead::end_backward(Ctx& ctx, View dy_PD, View dy_TD) const {
  if (part_.is_cut()) add_pieces(ctx, part_, dy_PD, dy_TD, "gradients of the head");
}

void LmHead::backward(Ctx& ctx, View dy_PD, View y_PD, std::span<const double> dlogp_T, const Saved& saved) const {
  if (saved.backward_is_done) return;
  const View dy_TD = begin_backward(ctx, dy_PD, dlogp_T, saved);
  const auto R = static_cast<int64_t>(saved.rows.size());
  const View y_TD = R > 0 ? all_rows(ctx, y_PD, static_cast<int64_t>(dlogp_T.size())) : View{};
  for (int64_t begin = 0; begin < R; begin += chunk_) {
    const int64_t end = std::min(R, begin + chunk_);
    backward_chunk(ctx, dy_TD, chunk_logits(ctx, y_TD, saved, begin, end), saved, begin, end);
  }
  end_backward(ctx, dy_PD, dy_TD);
}

void LmHead::logits(Ctx& ctx, View y_TD, int64_t begin, int64_t end, std::vector<double>& logits_TV) const {
  logits_TV.clear();
  logits_TV.reserve((end - begin) * V_);
  for (int64_t at = begin; at < end; at += chunk_) {
    const int64_t stop = std::min(end, at + chunk_);
    const View logits_CV = logits_CV_.first(stop - at);
    head_.forward(ctx, logits_CV, y_TD.rows(at, stop));
    const auto values = download(ctx, logits_CV);
    logits_TV.insert(logits_TV.end(), values.begin(), values.end());
  }
}

}  // namespace temper::layers
