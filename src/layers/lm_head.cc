#include "layers/lm_head.h"

#include <algorithm>

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

}  // namespace

LmHead::LmHead(int64_t V, int64_t D, int64_t chunk, Dtypes dtypes)
    : V_(V), D_(D), chunk_(chunk), dtypes_(dtypes), head_{matrix("lm_head.weight", {V, D}, dtypes)} {}

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

void LmHead::declare_scratch(Book& book, bool train) {
  const ScratchScope scope(book);
  const auto declare = [&](View& view, const char* what, DType dtype, Shape shape) {
    book.declare(&view, TensorKind::kScratch, std::string("lm_head:") + what, dtype, shape);
  };
  declare(y_CD_, "y", dtypes_.act, {chunk_, D_});
  declare(logits_CV_, "logits", dtypes_.acc, {chunk_, V_});
  if (!train) return;
  declare(dlogits_CV_, "dlogits", dtypes_.act, {chunk_, V_});
  declare(dy_CD_, "dy", dtypes_.acc, {chunk_, D_});
}

View LmHead::chunk_logits(Ctx& ctx, View y_TD, const Saved& saved, int64_t begin, int64_t end) const {
  const View y_CD = y_CD_.first(end - begin), logits_CV = logits_CV_.first(end - begin);
  ctx.ops.gather_rows(ctx.stream, y_CD, y_TD, saved.rows_R.rows(begin, end));
  head_.forward(ctx, logits_CV, y_CD);
  return logits_CV;
}

void LmHead::logprobs(Ctx& ctx, View y_TD, std::span<const int32_t> targets, Saved& saved, std::vector<double>& logp_T,
                      std::vector<int32_t>& best_T, const Known& known) const {
  saved.rows.clear();
  std::vector<int32_t> chosen;
  for (size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] < 0) continue;
    saved.rows.push_back(static_cast<int32_t>(t));
    chosen.push_back(targets[t]);
  }
  const auto R = static_cast<int64_t>(saved.rows.size());
  logp_T.assign(targets.size(), 0);
  best_T.assign(targets.size(), -1);
  saved.backward_is_done = !known.dlogp_T.empty();
  if (saved.backward_is_done) begin_backward(ctx, known.dy_TD, known.dlogp_T, saved);
  if (R == 0) return;
  ctx.device.copy_to_device(ctx.stream, saved.rows_R.first(R), saved.rows.data());
  ctx.device.copy_to_device(ctx.stream, saved.target_R.first(R), chosen.data());
  for (int64_t begin = 0; begin < R; begin += chunk_) {
    const int64_t end = std::min(R, begin + chunk_);
    const View logits_CV = chunk_logits(ctx, y_TD, saved, begin, end);
    ctx.ops.logprob_forward(ctx.stream, saved.logp_R.rows(begin, end), saved.lse_R.rows(begin, end),
                            saved.best_R.rows(begin, end), logits_CV, saved.target_R.rows(begin, end));
    if (saved.backward_is_done) backward_chunk(ctx, known.dy_TD, logits_CV, saved, begin, end);
  }
  const auto logp = download(ctx, saved.logp_R.first(R));
  std::vector<int32_t> best(R);
  ctx.device.copy_to_host(ctx.stream, best.data(), saved.best_R.first(R));
  for (int64_t r = 0; r < R; ++r) {
    logp_T[saved.rows[r]] = logp[r];
    best_T[saved.rows[r]] = best[r];
  }
}

void LmHead::begin_backward(Ctx& ctx, View dy_TD, std::span<const double> dlogp_T, const Saved& saved) const {
  ctx.ops.fill(ctx.stream, dy_TD, 0);
  const auto R = static_cast<int64_t>(saved.rows.size());
  if (R == 0) return;
  std::vector<double> g(R);
  for (int64_t r = 0; r < R; ++r) g[r] = dlogp_T[saved.rows[r]];
  upload(ctx, saved.g_R.first(R), g);
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

void LmHead::backward(Ctx& ctx, View dy_TD, View y_TD, std::span<const double> dlogp_T, const Saved& saved) const {
  if (saved.backward_is_done) return;
  begin_backward(ctx, dy_TD, dlogp_T, saved);
  const auto R = static_cast<int64_t>(saved.rows.size());
  for (int64_t begin = 0; begin < R; begin += chunk_) {
    const int64_t end = std::min(R, begin + chunk_);
    backward_chunk(ctx, dy_TD, chunk_logits(ctx, y_TD, saved, begin, end), saved, begin, end);
  }
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
