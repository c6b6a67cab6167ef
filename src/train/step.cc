#include "train/step.h"

#include <cmath>
#include <limits>

#include "base/clock.h"
#include "base/error.h"

namespace temper::train {

using parallel::Action;

double count_denominator(const objective::Objective& objective, std::span<const layers::MicroBatch> batches) {
  double z = 0;
  for (const layers::MicroBatch& batch : batches) z += objective.count(batch);
  return z;
}

bool StepResult::finite() const {
  return std::isfinite(loss) && std::isfinite(mtp_loss) && std::isfinite(norms.global) && norms.first_nonfinite.empty();
}

const StepResult& Step::compute(std::span<const layers::MicroBatch> batches, double learning_rate) {
  batches_ = batches;
  result_ = {};
  result_.learning_rate = learning_rate;
  sums_ = {};
  mtp_sum_ = 0;
  loss_is_finite_ = true;
  num_step_tokens_ = 0;
  for (const layers::MicroBatch& batch : batches) num_step_tokens_ += static_cast<int64_t>(batch.tokens.size());
  instructions_ = parallel::one_rank_step(static_cast<int64_t>(batches.size()));
  position_ = instructions_.size();
  z_ = count_denominator(parts_.objective, batches);
  if (!std::isfinite(z_)) {
    result_.loss = std::numeric_limits<double>::quiet_NaN();
    return result_;
  }
  if (!(z_ > 0)) {
    fail(ErrorCode::kInvalidArgument,
         "the step has no trained token: the loss weights of its {} micro-batches sum to {}; check the loss mask of "
         "the data",
         batches.size(), z_);
  }
  parts_.model.zero_gradients(parts_.ctx);
  parallel::run(instructions_, *this, position_);
  result_.loss = sums_.loss / z_;
  if (std::isnan(result_.loss)) result_.loss = std::numeric_limits<double>::quiet_NaN();  // of one sign
  result_.mtp_loss = mtp_sum_ / z_;
  result_.num_targets = static_cast<int64_t>(sums_.num_targets);
  result_.mean_token_accuracy = sums_.num_correct / sums_.num_targets;
  return result_;
}

const StepResult& Step::update() {
  CHECK(result_.finite(), result_.loss, result_.norms.global);
  instructions_ = {{Action::kUpdate}};
  parallel::run(instructions_, *this, position_);
  return result_;
}

std::string Step::position() const {
  return position_ < instructions_.size() ? parallel::describe(instructions_[position_]) : "counting the loss weights";
}

int64_t Step::micro_batch() const {
  return position_ < instructions_.size() ? instructions_[position_].micro_batch : -1;
}

void Step::execute(const parallel::Instruction& instruction) {
  if (!loss_is_finite_) return;
  const double start = now_seconds();
  switch (instruction.action) {
    case Action::kForward:
      forward(batches_[instruction.micro_batch]);
      break;
    case Action::kLoss:
      loss(batches_[instruction.micro_batch]);
      break;
    case Action::kBackward:
      parts_.model.backward(parts_.ctx,
                            {dlogp_T_, mtp_dlogp_R_, parts_.auxiliary.balance / static_cast<double>(batches_.size()),
                             parts_.auxiliary.indexer / static_cast<double>(num_step_tokens_)});
      break;
    case Action::kReduce:
      reduce();
      break;
    case Action::kUpdate:
      parts_.adamw.step(parts_.ctx, parts_.model.parameters(), result_.learning_rate,
                        optim::clip_factor(result_.norms.global, parts_.max_grad_norm), parts_.update_meter);
      if (parts_.update_meter) result_.update = parts_.update_meter->read(parts_.ctx);
      if (parts_.auxiliary.bias_update_speed > 0)
        parts_.model.update_router_biases(parts_.ctx, parts_.auxiliary.bias_update_speed);
      break;
  }
  parts_.ctx.device.stream_sync(parts_.ctx.stream);  // so that the split of time is true
  const double seconds = now_seconds() - start;
  switch (instruction.action) {
    case Action::kForward:
    case Action::kLoss:
      result_.forward_seconds += seconds;
      break;
    case Action::kBackward:
      result_.backward_seconds += seconds;
      break;
    case Action::kReduce:
    case Action::kUpdate:
      result_.optimizer_seconds += seconds;
      break;
  }
}

void Step::forward(const layers::MicroBatch& batch) {
  parts_.model.forward(parts_.ctx, batch);
  result_.num_tokens += static_cast<int64_t>(batch.tokens.size());
}

void Step::loss(const layers::MicroBatch& batch) {
  dlogp_T_.resize(batch.tokens.size());
  const bool known = parts_.objective.constant_weights(batch, z_, dlogp_T_);
  const model::TokenResults results =
      parts_.model.logprobs(parts_.ctx, known ? std::span<const double>(dlogp_T_) : std::span<const double>());
  const auto sums = parts_.objective.token_weights(batch, results.logp_T, results.best_T, z_, dlogp_T_);
  sums_.loss += sums.loss;
  loss_is_finite_ = std::isfinite(sums.loss);
  if (parts_.auxiliary.mtp > 0) mtp_loss();
  sums_.num_targets += sums.num_targets;
  sums_.num_correct += sums.num_correct;
  const model::Config& config = parts_.model.config();
  const auto layout = layers::make_layout(batch.cu_seqlens, config.sliding_window, config.compress_rates());
  result_.model_flops += parts_.model.train_flops(layout, static_cast<int64_t>(sums.num_targets));
}

// The prediction block's loss: that of the objective on its own rows, with the Z of the main loss (post-training 1.6).
void Step::mtp_loss() {
  const layers::MicroBatch& rows = parts_.model.mtp_batch();
  mtp_dlogp_R_.resize(rows.tokens.size());
  const bool known = parts_.objective.constant_weights(rows, z_, mtp_dlogp_R_);
  for (double& dlogp : mtp_dlogp_R_) dlogp *= parts_.auxiliary.mtp;
  const model::TokenResults results =
      parts_.model.mtp_logprobs(parts_.ctx, known ? std::span<const double>(mtp_dlogp_R_) : std::span<const double>());
  if (rows.tokens.empty()) return;
  mtp_sum_ += parts_.objective.token_weights(rows, results.logp_T, results.best_T, z_, mtp_dlogp_R_).loss;
  for (double& dlogp : mtp_dlogp_R_) dlogp *= parts_.auxiliary.mtp;
}

void Step::auxiliary() {
  const model::AuxiliaryLosses losses = parts_.model.auxiliary_losses(parts_.ctx);
  for (const double sum : losses.balance_L) result_.balance_loss += sum / static_cast<double>(batches_.size());
  for (const double sum : losses.indexer_L) result_.indexer_loss += sum / static_cast<double>(num_step_tokens_);
  result_.moe_L = parts_.model.moe_statistics(parts_.ctx);
}

void Step::reduce() {
  auxiliary();
  result_.norms = parts_.norm_meter.measure(parts_.ctx);
}

}  // namespace temper::train
