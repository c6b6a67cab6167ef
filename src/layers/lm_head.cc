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

void LmHead::declare_inputs(Book& book, int64_t max_tokens) {
  const auto declare = [&](View& view, const char* what, DType dtype) {
    book.declare(&view, TensorKind::kInput, std::string("lm_head:") + what, dtype, {max_tokens});
  };
  declare(rows_R_, "rows", DType::kI32);
  declare(target_R_, "target", DType::kI32);
  declare(best_R_, "best", DType::kI32);
  declare(logp_R_, "logp", dtypes_.acc);
  declare(lse_R_, "lse", dtypes_.acc);
  declare(g_R_, "dlogp", dtypes_.acc);
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

View LmHead::chunk_logits(Ctx& ctx, View y_TD, int64_t begin, int64_t end) {
  const View y_CD = y_CD_.first(end - begin), logits_CV = logits_CV_.first(end - begin);
  ctx.ops.gather_rows(ctx.stream, y_CD, y_TD, rows_R_.rows(begin, end));
  head_.forward(ctx, logits_CV, y_CD);
  return logits_CV;
}

void LmHead::logprobs(Ctx& ctx, View y_TD, std::span<const int32_t> targets, std::vector<double>& logp_T,
                      std::vector<int32_t>& best_T) {
  rows_.clear();
  std::vector<int32_t> chosen;
  for (size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] < 0) continue;
    rows_.push_back(static_cast<int32_t>(t));
    chosen.push_back(targets[t]);
  }
  num_targets_ = static_cast<int64_t>(rows_.size());
  logp_T.assign(targets.size(), 0);
  best_T.assign(targets.size(), -1);
  if (num_targets_ == 0) return;
  ctx.device.copy_to_device(ctx.stream, rows_R_.first(num_targets_), rows_.data());
  ctx.device.copy_to_device(ctx.stream, target_R_.first(num_targets_), chosen.data());
  for (int64_t begin = 0; begin < num_targets_; begin += chunk_) {
    const int64_t end = std::min(num_targets_, begin + chunk_);
    const View logits_CV = chunk_logits(ctx, y_TD, begin, end);
    ctx.ops.logprob_forward(ctx.stream, logp_R_.rows(begin, end), lse_R_.rows(begin, end), best_R_.rows(begin, end),
                            logits_CV, target_R_.rows(begin, end));
  }
  const auto logp = download(ctx, logp_R_.first(num_targets_));
  std::vector<int32_t> best(num_targets_);
  ctx.device.copy_to_host(ctx.stream, best.data(), best_R_.first(num_targets_));
  for (int64_t r = 0; r < num_targets_; ++r) {
    logp_T[rows_[r]] = logp[r];
    best_T[rows_[r]] = best[r];
  }
}

void LmHead::backward(Ctx& ctx, View dy_TD, View y_TD, std::span<const double> dlogp_T) {
  if (num_targets_ == 0) return;
  std::vector<double> g(num_targets_);
  for (int64_t r = 0; r < num_targets_; ++r) g[r] = dlogp_T[rows_[r]];
  upload(ctx, g_R_.first(num_targets_), g);
  for (int64_t begin = 0; begin < num_targets_; begin += chunk_) {
    const int64_t end = std::min(num_targets_, begin + chunk_);
    const View logits_CV = chunk_logits(ctx, y_TD, begin, end);
    const View y_CD = y_CD_.first(end - begin), dlogits_CV = dlogits_CV_.first(end - begin);
    const View dy_CD = dy_CD_.first(end - begin);
    ctx.ops.logprob_backward(ctx.stream, dlogits_CV, logits_CV, lse_R_.rows(begin, end), target_R_.rows(begin, end),
                             g_R_.rows(begin, end));
    head_.backward_weight(ctx, dlogits_CV, y_CD);
    head_.backward_input(ctx, dy_CD, dlogits_CV, 0);
    ctx.ops.scatter_add_rows(ctx.stream, dy_TD, dy_CD, rows_R_.rows(begin, end));
  }
}

void LmHead::logits(Ctx& ctx, View y_TD, int64_t begin, int64_t end, std::vector<double>& logits_TV) {
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
