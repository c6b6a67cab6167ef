#include "rig.h"

#include <cmath>

#include "base/error.h"

namespace temper::model {

namespace {

template <class T>
std::vector<T> converted(std::span<const double> values) {
  std::vector<T> out;
  out.reserve(values.size());
  for (const double value : values) out.push_back(T(value));
  return out;
}

template <class T>
std::vector<double> fetched(const layers::Ctx& ctx, const View& view) {
  std::vector<T> raw(view.size());
  ctx.device.copy_to_host(ctx.stream, raw.data(), view);
  return {raw.begin(), raw.end()};
}

}  // namespace

Rig::Rig(const Config& config, ModelOptions options, const backend::Backend& backend)
    : model_(config, options),
      ctx_{backend.ops, backend.device, backend.device.stream_create(), layers::act_dtype(options.precision),
           layers::acc_dtype(options.precision)} {
  model_.declare(book_);
  arena_ = std::make_unique<backend::Arena>(backend.device, book_);
  model_.prepare(ctx_);
}

Rig::~Rig() { ctx_.device.stream_destroy(ctx_.stream); }

layers::Parameter& Rig::parameter(const std::string& name) {
  for (layers::Parameter* p : model_.parameters())
    if (p->name == name) return *p;
  fail(ErrorCode::kNotFound, "the model has no parameter {}", name);
}

void Rig::set(layers::Parameter& parameter, std::span<const double> values) {
  const View to = parameter.master.defined() ? parameter.master : parameter.value;
  CHECK(static_cast<int64_t>(values.size()) == to.size(), parameter.name, values.size(), to.size());
  switch (to.dtype) {
    case DType::kF64:
      return ctx_.device.copy_to_device(ctx_.stream, to, values.data());
    case DType::kF32:
      return ctx_.device.copy_to_device(ctx_.stream, to, converted<float>(values).data());
    case DType::kBF16:
      return ctx_.device.copy_to_device(ctx_.stream, to, converted<bf16>(values).data());
    case DType::kI64:
      return ctx_.device.copy_to_device(ctx_.stream, to, converted<int64_t>(values).data());
    default:
      CHECK(false, parameter.name, dtype_name(to.dtype));
  }
}

std::vector<double> Rig::read(const View& view) const {
  switch (view.dtype) {
    case DType::kF64:
      return fetched<double>(ctx_, view);
    case DType::kF32:
      return fetched<float>(ctx_, view);
    case DType::kBF16:
      return fetched<bf16>(ctx_, view);
    case DType::kI32:
      return fetched<int32_t>(ctx_, view);
    case DType::kI64: {
      std::vector<int64_t> raw(view.size());
      ctx_.device.copy_to_host(ctx_.stream, raw.data(), view);
      return {raw.begin(), raw.end()};
    }
    case DType::kNone:
      break;
  }
  CHECK(false, "an undefined view");
  return {};
}

namespace {

double weighted_loss(const layers::MicroBatch& batch, const TokenResults& results) {
  double sum = 0;
  for (size_t t = 0; t < batch.tokens.size(); ++t)
    if (batch.targets[t] >= 0) sum -= batch.weights[t] * results.logp_T[t];
  return sum;
}

std::vector<double> loss_gradient(const layers::MicroBatch& batch, double scale) {
  std::vector<double> dlogp_T;
  for (size_t t = 0; t < batch.tokens.size(); ++t)
    dlogp_T.push_back(batch.targets[t] >= 0 ? -scale * batch.weights[t] : 0.0);
  return dlogp_T;
}

}  // namespace

double Rig::loss(const layers::MicroBatch& batch, const Choices* given, const ExtraLosses& extra) {
  model_.forward(ctx_, batch, given);
  double sum = weighted_loss(batch, model_.logprobs(ctx_));
  if (extra.mtp > 0) sum += extra.mtp * weighted_loss(model_.mtp_batch(), model_.mtp_logprobs(ctx_));
  return sum;
}

double Rig::loss_and_gradients(const layers::MicroBatch& batch, const ExtraLosses& extra) {
  model_.zero_gradients(ctx_);
  return add_gradients(batch, extra);
}

double Rig::add_gradients(const layers::MicroBatch& batch, const ExtraLosses& extra) {
  const double sum = loss(batch, nullptr, extra);
  const std::vector<double> dlogp_T = loss_gradient(batch, 1);
  std::vector<double> mtp_dlogp_R;
  if (extra.mtp > 0) mtp_dlogp_R = loss_gradient(model_.mtp_batch(), extra.mtp);
  model_.backward(ctx_, {dlogp_T, mtp_dlogp_R, extra.balance, extra.indexer});
  return sum;
}

std::vector<double> Rig::logits(const layers::MicroBatch& batch) {
  model_.forward(ctx_, batch);
  std::vector<double> logits_TV;
  model_.logits(ctx_, 0, static_cast<int64_t>(batch.tokens.size()), logits_TV);
  return logits_TV;
}

layers::MicroBatch next_token_batch(const std::vector<std::vector<int32_t>>& documents) {
  layers::MicroBatch batch;
  batch.cu_seqlens = {0};
  for (const auto& document : documents) {
    for (size_t t = 0; t < document.size(); ++t) {
      const bool last = t + 1 == document.size();
      batch.tokens.push_back(document[t]);
      batch.targets.push_back(last ? -1 : document[t + 1]);
      batch.weights.push_back(last ? 0.0f : 1.0f);
    }
    batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  return batch;
}

double norm(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

}  // namespace temper::model
