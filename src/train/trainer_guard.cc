// Steps that are not as usual: looked into, skipped, gone back from, or the end of the run; and bundles replayed.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "checkpoint/state_ranks.h"
#include "parallel/texts.h"
#include "train/configuration.h"
#include "train/trainer.h"

namespace temper::train {
namespace {

Judgement judge(Guard& guard, const StepResult& result) {
  // A prediction loss that is not finite is not part of result.loss.
  return guard.judge(std::isfinite(result.mtp_loss) ? result.loss : result.mtp_loss, result.norms.global);
}

// Whether one rank found what one of many did: the same element of the state or the data, or the same op of the same
// layer at the same token; tensors and indices of ops are those of a rank's memory.
bool same_place(const nlohmann::ordered_json& one, const nlohmann::ordered_json& of_many) {
  if (one.is_null() || of_many.is_null()) return one.is_null() && of_many.is_null();
  std::vector<std::string> keys = {"tensor", "index"};
  if (one.contains("op")) keys = {"layer", "op", "operand", "micro_batch", "token"};
  const auto of = [](const nlohmann::ordered_json& bad, const std::string& key) {
    return bad.value(key, nlohmann::ordered_json());
  };
  return std::all_of(keys.begin(), keys.end(), [&](const auto& key) { return of(one, key) == of(of_many, key); });
}

}  // namespace

StepParts Trainer::step_parts() {
  const auto& t = config_.train;
  return {session_->ctx(),
          session_->model(),
          *objective_,
          session_->norm_meter(),
          adamw_,
          config_.optimizer.max_grad_norm,
          {session_->model().options().mtp ? t.mtp_weight : 0, t.balance_weight, t.indexer_weight, t.bias_update_speed},
          &session_->update_meter()};
}

Incident Trainer::look_into(const data::LoaderStep& data, const StepResult& result, const Judgement& judgement) {
  const data::LoaderStep* baseline = usual_.micro_batches.empty() ? nullptr : &usual_;
  return investigate({step_parts(), session_->book(), data, baseline, schedule_.at(state_.step)}, state_.step + 1,
                     result, judgement);
}

GuardAction Trainer::compute_step(Step& step, const data::LoaderStep& data, StepResult& result) {
  const int64_t number = state_.step + 1;
  const double learning_rate = schedule_.at(state_.step);
  result = step.compute(data.micro_batches, learning_rate);
  Judgement judgement = judge(guard_, result);
  step_was_usual_ = judgement.anomaly == Anomaly::kNone;
  if (step_was_usual_) return GuardAction::kGoOn;
  if (is_replay_)
    return guard_.act(judgement, number, -1) == GuardAction::kGoOn ? GuardAction::kGoOn : GuardAction::kSkipStep;
  if (!guard_.investigates(judgement, number)) return guard_.act(judgement, number, rollback_target(number));

  const Incident incident = look_into(data, result, judgement);
  // The gradients are the investigation's; and after a transient fault the step may be sound now.
  result = step.compute(data.micro_batches, learning_rate);
  if (incident.is_transient) judgement = judge(guard_, result);
  const GuardAction action = guard_.act(judgement, number, rollback_target(number));
  guard_.count_incident(number);
  write_incident(incident, data, judgement.anomaly == Anomaly::kNone ? "repeated" : action_name(action));
  return action;
}

// By the directory as the first rank sees it: on a network others may see it as it was some time ago.
int64_t Trainer::rollback_target(int64_t step) {
  keeper_->wait_until_written();
  int64_t target = -1;
  if (is_first())
    for (const int64_t saved : log_.steps())
      if (saved <= step - Guard::kRollbackDistance) target = saved;
  return std::stoll(parallel::tell_all(world_, std::to_string(target)));
}

void Trainer::write_incident(const Incident& incident, const data::LoaderStep& data, std::string_view action) {
  progress_->note(describe(incident));
  keeper_->wait_until_written();
  try {
    std::vector<checkpoint::DamagedState> damaged;
    std::optional<StateReference> start;
    if (const auto opened = checkpoint::open_newest(log_, state_.step, damaged, world_)) {
      parallel::together(world_, [&] {
        if (is_first()) log_.pin(opened->step());
      });
      start = {opened->step(), opened->hash()};
    }
    const auto decode = [&](std::span<const int32_t> ids) { return tokenizer_->decode(ids); };
    incident_dir_ = write_bundle(dir_.path(),
                                 {incident, data, schedule_.at(state_.step), std::string(action), start,
                                  configuration_of(config_), decode, ranks_ ? &*ranks_ : nullptr},
                                 files_);
    progress_->note(fmt::format("{}; written to {}", action, incident_dir_.string()));
  } catch (const Error& error) {
    // The run must not die of a full disk.
    progress_->note(fmt::format("{}; warning: the bundle could not be written: {}", action, error.what()));
  }
}

void Trainer::roll_back(int64_t step) {
  const int64_t target = rollback_target(step);
  std::vector<checkpoint::DamagedState> damaged;
  const auto opened = checkpoint::open_newest(log_, target, damaged, world_);
  if (!opened)
    fail(ErrorCode::kCorrupt, "step {} was to be rolled back, and {} holds no whole state up to step {}", step,
         dir_.states().string(), target);
  const Guard before = guard_;
  take_up(*opened);
  guard_.carry_on(before);
  if (placement_) placement_->forget();
  session_->state_tensors().load(session_->ctx(), session_->model(), *opened);
  usual_ = {};
  heldout_loss_.reset();
  progress_->note(fmt::format("rolled back to step {}; step {} will be left out", opened->step(), step));
  schedule_next_save();
}

ReplayResult Trainer::replay(const Bundle& bundle) {
  CHECK(is_replay_);
  const auto differs = [](std::string why) { return ReplayResult{false, std::move(why), ""}; };
  Step step(step_parts());
  data::LoaderStep data;
  while (state_.step + 1 < bundle.step) {
    StepReport report;
    if (!loader_->next(data)) return differs("the data ends before the step");
    run_step(step, data, report);
  }
  if (!loader_->next(data) || batch_lines(data) != bundle.batch)
    return differs("the data of the step is not the recorded one");
  const StepResult result = step.compute(data.micro_batches, schedule_.at(state_.step));
  const Judgement judgement = judge(guard_, result);
  if (judgement.anomaly == Anomaly::kNone)
    return differs(fmt::format("the step gives loss {:.6g} and gradient norm {:.6g}, as usual{}", result.loss,
                               result.norms.global,
                               bundle.is_transient ? ", as it did when it was repeated: the fault was transient" : ""));
  const Incident incident = look_into(data, result, judgement);
  const nlohmann::ordered_json found = incident.bad ? to_json(*incident.bad) : nlohmann::ordered_json(nullptr);
  const bool same = bundle.is_of_many ? same_place(found, bundle.first_bad) : found == bundle.first_bad;
  return {same, same ? "" : "another value is the first bad one", describe(incident)};
}

}  // namespace temper::train
