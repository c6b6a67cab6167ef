#include "train/guard.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/json_numbers.h"

namespace temper::train {

std::string_view action_name(GuardAction action) {
  constexpr std::string_view kNames[] = {"go_on", "skip_step", "rollback", "stop"};
  return kNames[static_cast<int>(action)];
}

GuardAction parse_action(std::string_view name) {
  if (name == "report") return GuardAction::kGoOn;
  for (const GuardAction action : {GuardAction::kSkipStep, GuardAction::kRollback, GuardAction::kStop})
    if (name == action_name(action)) return action;
  CHECK(false, name);
  return GuardAction::kStop;
}

GuardOptions guard_options(const RunConfig& config) {
  const auto& g = config.guard;
  return {parse_action(g.on_nonfinite), parse_action(g.on_spike), g.loss_sigmas, g.grad_norm_factor};
}

Guard::Guard(const GuardOptions& options)
    : options_(options), detector_(options.loss_sigmas, options.grad_norm_factor) {}

bool Guard::investigates(const Judgement& judgement, int64_t step) const {
  if (judgement.anomaly == Anomaly::kNone) return false;
  if (judgement.anomaly == Anomaly::kNonFinite) return true;
  if (options_.on_spike == GuardAction::kGoOn && step - last_incident_ < kReportDistance) return false;
  return detector_.num_spikes_in_row() == 1;
}

GuardAction Guard::act(const Judgement& judgement, int64_t step, int64_t rollback_to) {
  if (judgement.anomaly == Anomaly::kNone) return GuardAction::kGoOn;
  num_nonfinite_ += judgement.anomaly == Anomaly::kNonFinite;
  switch (judgement.anomaly == Anomaly::kNonFinite ? options_.on_nonfinite : options_.on_spike) {
    case GuardAction::kGoOn:
      return GuardAction::kGoOn;
    case GuardAction::kStop:
      return GuardAction::kStop;
    case GuardAction::kRollback:
      return roll_back_or_stop(step, rollback_to);
    case GuardAction::kSkipStep:
      break;
  }
  count_skip(step);
  const bool too_many = num_in_row_ >= kMostInRow || std::ssize(skipped_) > kMostInWindow;
  return too_many ? roll_back_or_stop(step, rollback_to) : GuardAction::kSkipStep;
}

void Guard::count_skip(int64_t step) {
  ++num_skipped_, ++num_in_row_;
  skipped_.push_back(step);
  std::erase_if(skipped_, [&](int64_t old) { return old <= step - kWindow; });
}

GuardAction Guard::roll_back_or_stop(int64_t step, int64_t rollback_to) {
  num_to_it_ = rollback_to == rolled_back_to_ ? num_to_it_ + 1 : 1;
  rolled_back_to_ = rollback_to;
  if (rollback_to < 0 || num_to_it_ > kMostRollbacks) return GuardAction::kStop;
  ++num_rollbacks_;
  // With the step itself go those before it that were skipped since the state: they would be bad again.
  for (const int64_t bad : skipped_)
    if (bad > rollback_to && bad < step) left_out_.push_back(bad);
  left_out_.push_back(step);
  std::sort(left_out_.begin(), left_out_.end());
  left_out_.erase(std::unique(left_out_.begin(), left_out_.end()), left_out_.end());
  return GuardAction::kRollback;
}

bool Guard::leaves_out(int64_t step) {
  if (!std::binary_search(left_out_.begin(), left_out_.end(), step)) return false;
  ++num_skipped_;
  std::erase_if(left_out_, [&](int64_t old) { return old <= step; });
  return true;
}

void Guard::carry_on(const Guard& before) {
  num_rollbacks_ = before.num_rollbacks_;
  num_nonfinite_ = before.num_nonfinite_, num_incidents_ = before.num_incidents_;
  last_incident_ = before.last_incident_;
  rolled_back_to_ = before.rolled_back_to_, num_to_it_ = before.num_to_it_;
  left_out_ = before.left_out_;
}

nlohmann::ordered_json Guard::to_json() const {
  return {{"num_skipped", num_skipped_},     {"num_in_row", num_in_row_},       {"num_rollbacks", num_rollbacks_},
          {"num_nonfinite", num_nonfinite_}, {"num_incidents", num_incidents_}, {"rolled_back_to", rolled_back_to_},
          {"num_to_it", num_to_it_},         {"last_incident", last_incident_}, {"skipped", skipped_},
          {"left_out", left_out_},           {"detector", detector_.to_json()}};
}

void Guard::from_json(const nlohmann::ordered_json& json) {
  try {
    num_skipped_ = whole_number(json.at("num_skipped"));
    num_in_row_ = whole_number(json.at("num_in_row"));
    num_rollbacks_ = whole_number(json.at("num_rollbacks"));
    num_nonfinite_ = whole_number(json.at("num_nonfinite"));
    num_incidents_ = whole_number(json.at("num_incidents"));
    rolled_back_to_ = whole_number(json.at("rolled_back_to"));
    num_to_it_ = whole_number(json.at("num_to_it"));
    last_incident_ = whole_number(json.at("last_incident"));
    skipped_ = whole_numbers(json.at("skipped"));
    left_out_ = whole_numbers(json.at("left_out"));
    detector_.from_json(json.at("detector"));
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::kCorrupt, "the guard's state: {}", error.what());
  }
  if (num_skipped_ < 0 || num_in_row_ < 0 || !std::is_sorted(left_out_.begin(), left_out_.end()))
    fail(ErrorCode::kCorrupt, "the guard's state holds impossible numbers");
}

}  // namespace temper::train
