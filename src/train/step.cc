#include "train/step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <numeric>

#include "base/clock.h"
#include "base/error.h"
#include "parallel/stages.h"

namespace temper::train {

using parallel::Action;

namespace {

// What the model was made for. The first stage does the same in a zero-bubble pipeline as in one of 1F1B.
parallel::Schedule schedule_of(const model::Model& model) {
  if (model.num_chunks() > 1) return parallel::Schedule::kInterleaved;
  return model.options().part.weights_later ? parallel::Schedule::kZeroBubble : parallel::Schedule::kOneFOneB;
}

}  // namespace

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
  loss_is_finite_ = true;
  num_step_tokens_ = 0;
  for (const layers::MicroBatch& batch : batches) num_step_tokens_ += static_cast<int64_t>(batch.tokens.size());
  deal();
  const comm::Comm* pp = parts_.ctx.groups.pp;
  place_ = {comm::group_rank(pp), comm::group_size(pp), parts_.model.num_chunks()};
  instructions_ = parallel::pipeline_step(schedule_of(parts_.model), place_, static_cast<int64_t>(mine_.size()));
  slots_ = parallel::plan_slots(instructions_);
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
  parts_.model.zero_gradients(parts_.ctx, static_cast<int64_t>(mine_.size()));
  sums_M_.assign(batches.size(), {});
  run_instructions();
  add_up();
  return result_;
}

double Step::predicted_flops(const layers::MicroBatch& batch) const {
  const model::Config& config = parts_.model.config();
  const auto layout = layers::make_layout(batch.cu_seqlens, config.sliding_window, config.compress_rates());
  return parts_.model.train_flops(
      layout, std::count_if(batch.targets.begin(), batch.targets.end(), [](int32_t target) { return target >= 0; }));
}

// Of its documents, alike on all ranks.
double Step::dealing_cost(const layers::MicroBatch& batch) const {
  double cost = 0;
  for (size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s)
    cost += parallel::document_flops(parts_.model.config(), batch.cu_seqlens[s + 1] - batch.cu_seqlens[s]);
  return cost;
}

// In the order of falling cost, a micro-batch for every rank at a time: what ranks compute at the same time costs about
// the same. Of each such round the costliest goes to the rank that has least so far. In exact mode the m-th goes to
// rank m mod dp, and one rank keeps to that order, too. Where they do not come out even, the last ones of some ranks
// are empty, since every rank takes part in what ranks do together.
void Step::deal() {
  const model::ModelPart& part = parts_.model.options().part;
  const comm::Comm* dp = parts_.ctx.groups.dp;
  const auto num_ranks = static_cast<size_t>(comm::group_size(dp)), self = static_cast<size_t>(comm::group_rank(dp));
  std::vector<size_t> order(batches_.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> costs(batches_.size());
  if (dp || part.exact()) {
    std::transform(batches_.begin(), batches_.end(), costs.begin(), [&](const auto& b) { return dealing_cost(b); });
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  }
  mine_.clear();
  dp_rank_M_.assign(batches_.size(), 0);
  std::vector<double> cost_of(num_ranks);
  std::vector<size_t> turn(num_ranks);  // ranks, in the order in which they get theirs
  std::iota(turn.begin(), turn.end(), 0);
  double longest = 0;
  for (size_t first = 0; first < order.size(); first += num_ranks) {
    if (!part.exact())
      std::stable_sort(turn.begin(), turn.end(), [&](size_t a, size_t b) { return cost_of[a] < cost_of[b]; });
    mine_.push_back(kEmpty);
    for (size_t i = 0; i < num_ranks && first + i < order.size(); ++i) {
      if (turn[i] == self) mine_.back() = order[first + i];
      dp_rank_M_[order[first + i]] = static_cast<int64_t>(turn[i]);
      cost_of[turn[i]] += costs[order[first + i]];
    }
    longest += costs[order[first]];
  }
  // Without anything to do together before the end of the step, ranks wait there only.
  if (part.ep_size == 1 && part.zero < 2 && !part.exact()) longest = *std::max_element(cost_of.begin(), cost_of.end());
  const double total = std::accumulate(costs.begin(), costs.end(), 0.0);
  result_.imbalance = dp ? longest * static_cast<double>(num_ranks) / total - 1 : 0;
}

const layers::MicroBatch& Step::batch_of(const parallel::Instruction& instruction) const {
  const size_t m = mine_[instruction.micro_batch];
  return m == kEmpty ? empty_ : batches_[m];
}

Step::Sums& Step::sums_of(const parallel::Instruction& instruction) {
  const size_t m = mine_[instruction.micro_batch];
  return m == kEmpty ? empty_sums_ : sums_M_[m];
}

// The results of the step from those of its micro-batches, whose ranks they come from: in one order, so that the layout
// changes no bit.
void Step::add_up() {
  static_assert(sizeof(Sums) == 6 * sizeof(double));
  for (comm::Comm* ranks : {parts_.ctx.groups.data, parts_.ctx.groups.pp}) {
    const View sums(sums_M_.data(), DType::kF64, {static_cast<int64_t>(6 * sums_M_.size())});
    if (ranks) ranks->all_reduce(nullptr, sums, comm::Reduce::kSum, {"results"});
  }
  Sums total;
  for (const Sums& sums : sums_M_) {
    total.loss += sums.loss, total.mtp_loss += sums.mtp_loss;
    total.num_targets += sums.num_targets, total.num_correct += sums.num_correct;
    total.num_tokens += sums.num_tokens, total.model_flops += sums.model_flops;
  }
  result_.loss = total.loss / z_;
  if (std::isnan(result_.loss)) result_.loss = std::numeric_limits<double>::quiet_NaN();  // of one sign
  result_.mtp_loss = total.mtp_loss / z_;
  result_.num_tokens = static_cast<int64_t>(total.num_tokens);
  result_.num_targets = static_cast<int64_t>(total.num_targets);
  result_.mean_token_accuracy = total.num_correct / total.num_targets;
  result_.model_flops = total.model_flops;
}

const StepResult& Step::update() {
  CHECK(result_.finite(), result_.loss, result_.norms.global);
  instructions_ = {{Action::kUpdate}};
  run_instructions();
  return result_;
}

// The others hear at once of an error: what travels beside computation is waited for before it leaves this rank.
void Step::run_instructions() {
  try {
    parallel::run(instructions_, *this, position_);
  } catch (const std::exception& error) {
    if (parts_.model.options().part.overlap)
      parts_.ctx.groups.world->abort(fmt::format("{}: {}", position(), error.what()));
    throw;
  }
}

std::string Step::position() const {
  if (position_ >= instructions_.size()) return "counting the loss weights";
  parallel::Instruction instruction = instructions_[position_];
  instruction.micro_batch = micro_batch();
  return parallel::describe(instruction);
}

int64_t Step::micro_batch() const {
  const int64_t m = position_ < instructions_.size() ? instructions_[position_].micro_batch : -1;
  return m < 0 || mine_[m] == kEmpty ? -1 : static_cast<int64_t>(mine_[m]);
}

void Step::execute(const parallel::Instruction& instruction) {
  // Other ranks do not know yet, and would wait.
  if (!loss_is_finite_ && !parts_.ctx.groups.world) return;
  if (comm::Comm* world = parts_.ctx.groups.world) world->set_place(number_, parallel::describe(instruction));
  if (instruction.micro_batch >= 0) parts_.model.select(slots_.slot_I[position_], instruction.chunk);
  const double start = now_seconds();
  switch (instruction.action) {
    case Action::kForward:
      forward(instruction);
      break;
    case Action::kLoss:
      loss(instruction);
      break;
    case Action::kBackward:
      parts_.model.backward(parts_.ctx, loss_gradients());
      break;
    case Action::kBackwardInput:
      parts_.model.backward_inputs(parts_.ctx, loss_gradients());
      break;
    case Action::kBackwardWeight:
      parts_.model.backward_weights(parts_.ctx);
      break;
    case Action::kReduce:
      reduce();
      break;
    case Action::kUpdate:
      parts_.adamw.step(parts_.ctx, parts_.model.parameters(), result_.learning_rate,
                        optim::clip_factor(result_.norms.global, parts_.max_grad_norm), parts_.update_meter);
      parts_.model.weights_updated(parts_.ctx);
      if (parts_.update_meter) result_.update = parts_.update_meter->read(parts_.ctx);
      if (parts_.auxiliary.bias_update_speed > 0)
        parts_.model.update_router_biases(parts_.ctx, parts_.auxiliary.bias_update_speed);
      break;
    case Action::kSendForward:
    case Action::kRecvForward:
    case Action::kSendBackward:
    case Action::kRecvBackward:
      pass(instruction);
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
    case Action::kBackwardInput:
    case Action::kBackwardWeight:
      result_.backward_seconds += seconds;
      break;
    case Action::kReduce:
    case Action::kUpdate:
      result_.optimizer_seconds += seconds;
      break;
    default:
      break;
  }
}

// What neighbours in the pipeline give each other. Nobody sends the nothing of a rank without rows.
void Step::pass(const parallel::Instruction& instruction) {
  model::Model& model = parts_.model;
  comm::Comm &pp = *parts_.ctx.groups.pp, &back = *parts_.ctx.groups.pp_back;
  backend::Stream* stream = parts_.ctx.stream;
  if (instruction.action == Action::kRecvForward) model.begin(parts_.ctx, batch_of(instruction));
  if (model.input_streams().dim(0) == 0) return;
  switch (instruction.action) {
    case Action::kRecvForward:
      return pp.recv(stream, model.input_streams(), place_.stage_before(), {"activations"});
    case Action::kSendForward:
      return pp.send(stream, model.output_streams(), place_.stage_after(), {"activations"});
    case Action::kRecvBackward:
      return back.recv(stream, model.streams_gradient(), place_.stage_after(), {"gradients of activations"});
    default:
      return back.send(stream, model.streams_gradient(), place_.stage_before(), {"gradients of activations"});
  }
}

model::LossGradients Step::loss_gradients() const {
  return {dlogp_T_, mtp_dlogp_R_, parts_.auxiliary.balance / static_cast<double>(batches_.size()),
          parts_.auxiliary.indexer / static_cast<double>(num_step_tokens_)};
}

void Step::forward(const parallel::Instruction& instruction) {
  if (parts_.model.is_first_part()) parts_.model.begin(parts_.ctx, batch_of(instruction));
  parts_.model.forward_layers(parts_.ctx);
}

void Step::loss(const parallel::Instruction& instruction) {
  const layers::MicroBatch& batch = batch_of(instruction);
  dlogp_T_.resize(batch.tokens.size());
  const bool known = parts_.objective.constant_weights(batch, z_, dlogp_T_);
  const model::TokenResults results =
      parts_.model.logprobs(parts_.ctx, known ? std::span<const double>(dlogp_T_) : std::span<const double>());
  const auto of_batch = parts_.objective.token_weights(batch, results.logp_T, results.best_T, z_, dlogp_T_);
  loss_is_finite_ = loss_is_finite_ && std::isfinite(of_batch.loss);
  const double mtp = parts_.auxiliary.mtp > 0 ? mtp_loss() : 0;
  // Ranks that share the micro-batch have equal results: they count once.
  const layers::Groups& groups = parts_.ctx.groups;
  if (comm::group_rank(groups.cp) > 0 || comm::group_rank(groups.tp) > 0) return;
  Sums& sums = sums_of(instruction);
  sums.loss = of_batch.loss, sums.num_targets = of_batch.num_targets, sums.num_correct = of_batch.num_correct;
  sums.mtp_loss = mtp;
  sums.num_tokens = static_cast<double>(batch.tokens.size());
  sums.model_flops = predicted_flops(batch);
}

// The prediction block's loss: that of the objective on its own rows, with the Z of the main loss (post-training 1.6).
double Step::mtp_loss() {
  const layers::MicroBatch& rows = parts_.model.mtp_batch();
  mtp_dlogp_R_.resize(rows.tokens.size());
  const bool known = parts_.objective.constant_weights(rows, z_, mtp_dlogp_R_);
  for (double& dlogp : mtp_dlogp_R_) dlogp *= parts_.auxiliary.mtp;
  const model::TokenResults results =
      parts_.model.mtp_logprobs(parts_.ctx, known ? std::span<const double>(mtp_dlogp_R_) : std::span<const double>());
  if (rows.tokens.empty()) return 0;
  const double loss = parts_.objective.token_weights(rows, results.logp_T, results.best_T, z_, mtp_dlogp_R_).loss;
  for (double& dlogp : mtp_dlogp_R_) dlogp *= parts_.auxiliary.mtp;
  return loss;
}

void Step::auxiliary() {
  const model::AuxiliaryLosses losses = parts_.model.auxiliary_losses(parts_.ctx);
  for (const double sum : losses.balance_L) result_.balance_loss += sum / static_cast<double>(batches_.size());
  for (const double sum : losses.indexer_L) result_.indexer_loss += sum / static_cast<double>(num_step_tokens_);
  result_.moe_L = parts_.model.moe_statistics(parts_.ctx);
}

void Step::reduce() {
  parts_.model.complete_gradients(parts_.ctx);
  auxiliary();
  result_.norms = parts_.norm_meter.measure(parts_.ctx);
}

}  // namespace temper::train
