#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/clock.h"
#include "base/error.h"
#include "checkpoint/model_dir.h"
#include "parallel/texts.h"
#include "train/data_setup.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

checkpoint::SaveDType save_dtype_of(const RunConfig& config) {
  if (config.output.dtype == "fp32") return checkpoint::SaveDType::kF32;
  if (config.output.dtype == "official") return checkpoint::SaveDType::kOfficial;
  return config.output.dtype == "bf16" ? checkpoint::SaveDType::kBF16 : checkpoint::SaveDType::kSource;
}

}  // namespace

TrainSummary Trainer::train() {
  const bool has_model = parallel::tell_all(world_, dir_.has_model() ? "yes" : "no") == "yes";
  if (state_.step >= schedule_.total_steps && has_model) {
    TrainSummary summary = summarise();
    summary.was_done = true;
    return summary;
  }
  const StopRequest stop(config_.train.warning_signal);
  reset_peak_resident();  // what the start took is not the run's
  progress_ = std::make_unique<Progress>(is_first() ? stdout : nullptr, scale_, config_.output.log_every);
  Step step(step_parts());
  if (state_.step == 0 && !heldout_.empty()) state_.totals.heldout_before = held_out();
  schedule_next_save();
  data::LoaderStep data;
  while (state_.step < schedule_.total_steps && !is_to_end(stop)) {
    const double start = now_seconds();
    if (!loader_->next(data)) break;
    StepReport report;
    report.data_seconds = now_seconds() - start;
    if (!run_step(step, data, report)) continue;
    report.step_seconds = now_seconds() - start;
    report_step(report);
    between_steps();
    rebalance_experts();
  }
  finish();
  return summarise();
}

bool Trainer::out_of_time() const {
  return config_.train.max_seconds > 0 && state_.totals.train_seconds >= config_.train.max_seconds;
}

void Trainer::ask_to_stop(const StopRequest& stop) {
  if (stopped_by_.empty()) stopped_by_ = stop.signal_name();
  const double margin = config_.train.stop_before_end;
  if (stopped_by_.empty() && margin > 0 && seconds_to_job_end() < margin)
    stopped_by_ = fmt::format("the end of the job in {:.0f} s", seconds_to_job_end());
}

// Alike on all ranks, though their clocks differ and a signal may reach one of them only.
bool Trainer::is_to_end(const StopRequest& stop) {
  ask_to_stop(stop);
  std::array<int32_t, 2> ends = {state_.step > 0 && out_of_time(), !stopped_by_.empty()};
  if (world_) {
    world_->set_place(state_.step + 1, "between two steps");
    world_->all_reduce(nullptr, View(ends.data(), DType::kI32, {2}), comm::Reduce::kMax, {"whether to stop"});
  }
  if (ends[1] && stopped_by_.empty()) stopped_by_ = "another rank's signal";
  return ends[0] || ends[1];
}

// False where the step is not done: the run went back, or is to stop.
bool Trainer::run_step(Step& step, data::LoaderStep& data, StepReport& report) {
  const int64_t number = state_.step + 1;
  step.at(number);
  GuardAction action = GuardAction::kSkipStep;
  report.result.loss = std::numeric_limits<double>::quiet_NaN();  // of a step that is left out
  if (!guard_.leaves_out(number)) {
    with_place(
        number, [&] { return step.position(); },
        [&] {
          action = compute_step(step, data, report.result);
          if (action != GuardAction::kGoOn) return;
          if (keeper_) keeper_->wait_until_copied();
          report.result = step.update();
          guard_.updated();
        });
  }
  if (action == GuardAction::kRollback) roll_back(number);
  if (action == GuardAction::kStop) stopped_by_ = fmt::format("the guard at step {}", number);
  if (action == GuardAction::kRollback || action == GuardAction::kStop) return false;
  report.skipped = action == GuardAction::kSkipStep;
  ++state_.step;
  state_.num_updates = adamw_.num_applied();
  state_.chain = extend_chain(state_.chain, state_.step, report.result);
  state_.loader = loader_->position();
  sources_.add(data);
  if (placement_) placement_->count(report.result.moe_L);
  heldout_loss_.reset();
  state_.totals.heldout_after.reset();
  report.step = state_.step;
  report.epoch = data.epoch;
  if (step_was_usual_ && !report.skipped) std::swap(usual_, data);
  return true;
}

void Trainer::report_step(StepReport& report) {
  RunTotals& totals = state_.totals;
  const StepResult& result = report.result;
  totals.num_tokens += result.num_tokens;
  totals.train_seconds += report.step_seconds;
  totals.model_flops += result.model_flops;
  if (report.step == 1 && !report.skipped) totals.first_loss = result.loss;
  if (!report.skipped) totals.last_loss = result.loss;
  report.num_skipped = guard_.num_skipped(), report.num_nonfinite = guard_.num_nonfinite();
  report.num_incidents = guard_.num_incidents();
  report.total_tokens = totals.num_tokens;
  report.chain = fmt::format("{:016x}", state_.chain);
  report.sources = sources_.counts();
  report.tokens_per_second = static_cast<double>(result.num_tokens) / report.step_seconds;
  report.mfu = mfu_of(result.model_flops, report.step_seconds);
  report.memory_bytes = peak_resident_bytes(), report.planned_bytes = scale_.planned_bytes;
  report.checkpoint_seconds = keeper_->take_pause_seconds();
  if (placement_) report.expert_imbalance = placement_->imbalance();
  if (ranks_) {
    for (const auto& [axis, group] : ranks_->axes()) {
      const double waited = group->traffic().wait_seconds;
      report.wait_seconds.emplace_back(axis, waited - std::exchange(waited_[axis], waited));
    }
    const double waited = session_->overlap_wait_seconds();
    if (config_.layout.overlap)
      report.wait_seconds.emplace_back("overlap", waited - std::exchange(waited_["overlap"], waited));
  }
  pause_seconds_ += report.checkpoint_seconds;
  if (logs_) logs_->write(report);
  double seconds_left = totals.train_seconds / static_cast<double>(report.step) *
                        static_cast<double>(schedule_.total_steps - report.step);
  if (config_.train.max_seconds > 0)
    seconds_left = std::clamp(config_.train.max_seconds - totals.train_seconds, 0.0, seconds_left);
  progress_->update(report, seconds_left);
}

void Trainer::between_steps() {
  if (state_.step == schedule_.total_steps) return;  // finish() does it all
  const auto& output = config_.output;
  if (output.eval_every > 0 && state_.step % output.eval_every == 0) held_out();
  if (output.save_every > 0 && state_.step % output.save_every == 0) save_model(dir_.model_at(state_.step));
  tell_of_saving();
  if (config_.checkpoint.every == 0 || state_.step < next_save_) return;
  save_state();
  schedule_next_save();
}

void Trainer::rebalance_experts() {
  if (!placement_ || state_.step % config_.layout.rebalance != 0) return;
  keeper_->wait_until_copied();
  const ExpertPlacement::Dealt dealt = placement_->deal();
  if (dealt.num_layers == 0) return;
  progress_->note(fmt::format(
      "after step {} the experts of {} layer{} were dealt anew: the busiest rank of a layer has {:.0f} % more "
      "rows than the mean, before it had {:.0f} %",
      state_.step, dealt.num_layers, dealt.num_layers == 1 ? "" : "s", 100 * dealt.after, 100 * dealt.before));
}

void Trainer::schedule_next_save() {
  const int64_t every = std::max<int64_t>(config_.checkpoint.every, 1);
  next_save_ = (state_.step / every + 1) * every;
}

void Trainer::save_state() {
  if (logs_) state_.log_bytes = logs_->lengths();
  state_.tokens_by_source = sources_.to_json();
  state_.guard = guard_.to_json();
  if (!placement_) return keeper_->begin(state_, heldout_loss_);
  placement_->put_in_order();
  keeper_->begin(state_, heldout_loss_);
  keeper_->wait_until_copied();
  placement_->put_back();
}

// A state that could not be written is tried again long before the next one is due.
void Trainer::tell_of_saving() {
  if (logs_) progress_->note(logs_->take_news());
  for (const KeepResult& result : keeper_->take_results()) {
    if (result.error.empty()) {
      ++num_states_;
      saved_step_ = result.step;
      continue;
    }
    next_save_ = std::min(next_save_, state_.step + std::max<int64_t>(1, config_.checkpoint.every / 10));
    const std::string last =
        saved_step_ > 0 ? fmt::format("the state of step {} stays", saved_step_) : "there is none yet";
    const bool goes_on = state_.step < schedule_.total_steps && stopped_by_.empty();
    const std::string next = goes_on ? fmt::format(", the next try is after step {}", next_save_) : "";
    progress_->note(
        fmt::format("warning: the state of step {} was not saved: {}; {}{}", result.step, result.error, last, next));
  }
}

// Saves the run as it is and waits until it is on the disk.
void Trainer::save_state_and_wait() {
  keeper_->wait_until_written();
  tell_of_saving();
  if (saved_step_ == state_.step) return;
  save_state();
  keeper_->wait_until_written();
  tell_of_saving();
}

void Trainer::finish() {
  if (stopped_by_.empty()) {
    if (!heldout_.empty() && !state_.totals.heldout_after) state_.totals.heldout_after = held_out();
    save_state_and_wait();
    save_model(dir_.model());
  } else if (state_.step > 0) {
    save_state_and_wait();
  }
  progress_->finish();
  if (!stopped_by_.empty() && state_.step > 0 && saved_step_ != state_.step)
    fail(ErrorCode::kIo, "the run was stopped by {} and its state after step {} could not be saved", stopped_by_,
         state_.step);
}

TrainSummary Trainer::summarise() {
  const RunTotals& totals = state_.totals;
  TrainSummary summary;
  summary.num_steps = state_.step, summary.num_tokens = totals.num_tokens;
  summary.train_seconds = totals.train_seconds;
  if (totals.train_seconds > 0) {
    summary.tokens_per_second = static_cast<double>(totals.num_tokens) / totals.train_seconds;
    summary.mfu = mfu_of(totals.model_flops, totals.train_seconds);
  }
  summary.peak_flops = scale_.peak.flops_per_second, summary.peak_name = scale_.peak.name;
  summary.peak_memory_bytes = peak_resident_bytes(), summary.planned_bytes = scale_.planned_bytes;
  summary.first_loss = totals.first_loss, summary.last_loss = totals.last_loss;
  summary.heldout_before = totals.heldout_before, summary.heldout_after = totals.heldout_after;
  summary.chain = state_.chain, summary.num_states = num_states_;
  if (num_states_ > 0) summary.mean_pause_seconds = pause_seconds_ / static_cast<double>(num_states_);
  if (stopped_by_.empty()) summary.model_dir = dir_.model();
  summary.stopped_by = stopped_by_;
  summary.stopped_by_guard = stopped_by_.starts_with("the guard");
  if (summary.stopped_by_guard) summary.incident_dir = incident_dir_;
  summary.interrupted = state_.step < schedule_.total_steps;
  return summary;
}

double Trainer::mfu_of(double model_flops, double seconds) const {
  const double peak = scale_.peak.flops_per_second;
  return peak > 0 ? model_flops / seconds / peak : 0;
}

HeldoutResult Trainer::held_out() {
  const HeldoutResult result = evaluate(session_->ctx(), session_->model(), heldout_);
  heldout_loss_ = result.loss;
  if (logs_) logs_->write(EvalReport{state_.step, result.loss, result.accuracy, result.num_targets});
  progress_->note(fmt::format("held-out loss after {} steps: {:.4f}, token accuracy {:.1f}% ({} tokens)", state_.step,
                              result.loss, 100 * result.accuracy, result.num_targets));
  return result;
}

void Trainer::save_model(const fs::path& dir) {
  checkpoint::SaveOptions options;
  options.dtype = save_dtype_of(config_);
  options.source_dir = config_.model.path;
  const fs::path tokenizer = tokenizer_path(config_);
  options.tokenizer_dir = fs::is_directory(tokenizer) ? tokenizer : tokenizer.parent_path();
  options.overwrite = true;  // of an interrupted save, or of the same step
  if (placement_) placement_->put_in_order();
  checkpoint::save_weights(dir, model_config_, session_->ctx(), session_->model().parameters(), options);
  if (placement_) placement_->put_back();
  progress_->note(fmt::format("saved {}", dir.string()));
}

}  // namespace temper::train
