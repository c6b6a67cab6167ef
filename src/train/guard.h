// What a run does about a step whose loss or gradients are not finite, or spike: the [guard] keys of the run file, with
// their limits. Counts are part of the run state.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/run_config.h"
#include "train/spike_detector.h"

namespace temper::train {

enum class GuardAction : uint8_t {
  kGoOn,      // update as usual
  kSkipStep,  // weights, moments, biases and the count of updates stay; data and learning rate go on
  kRollback,  // back to an earlier state; the step is left out when it comes again
  kStop,
};
std::string_view action_name(GuardAction action);  // "go_on", "skip_step", "rollback", "stop"
GuardAction parse_action(std::string_view name);   // also "report", which goes on

struct GuardOptions {
  GuardAction on_nonfinite = GuardAction::kSkipStep, on_spike = GuardAction::kGoOn;
  double loss_sigmas = 6, grad_norm_factor = 10;
};

GuardOptions guard_options(const RunConfig& config);

// Limits of post-training 3.7: with the third skipped step in a row, or the 11th within 1000 steps, the run rolls back
// instead; without a state to go back to, or after the third rollback to the same state, it stops.
class Guard {
 public:
  static constexpr int64_t kMostInRow = 3, kMostInWindow = 10, kWindow = 1000, kMostRollbacks = 3;
  // A rollback goes to a state at least so many steps before the bad one: the cause may be older than its sign.
  static constexpr int64_t kRollbackDistance = 8;
  static constexpr int64_t kReportDistance = 1000;

  explicit Guard(const GuardOptions& options);

  // Judges a step after compute(); a normal one enters the statistics.
  Judgement judge(double loss, double grad_norm) { return detector_.see(loss, grad_norm); }
  // Whether an anomaly of a step is worth an investigation: of spikes in a row only the first is, and where spikes
  // change nothing, only one that comes kReportDistance steps after the last incident: a noisy loss has a few in every
  // thousand.
  bool investigates(const Judgement& judgement, int64_t step) const;
  // What to do about a step (its number from 1) that judge() found anomalous. rollback_to: the newest state at least
  // kRollbackDistance steps before it; -1: none. Counts what it answers.
  GuardAction act(const Judgement& judgement, int64_t step, int64_t rollback_to);
  // Whether a rollback left this step out: it takes its data and is skipped without being computed. Counts it as
  // skipped.
  bool leaves_out(int64_t step);
  // A step that was updated: skipped steps in a row end.
  void updated() { num_in_row_ = 0; }

  void count_incident(int64_t step) { ++num_incidents_, last_incident_ = step; }

  int64_t num_skipped() const { return num_skipped_; }  // steps on the way here that did not move the weights
  // Of all that happened, also on ways that a rollback left.
  int64_t num_rollbacks() const { return num_rollbacks_; }
  int64_t num_nonfinite() const { return num_nonfinite_; }
  int64_t num_incidents() const { return num_incidents_; }

  // Exact. from_json throws kCorrupt. After a rollback, statistics and skips are those of the state; what happened and
  // the steps to leave out stay known: restored.from_json(state); restored.carry_on(before).
  nlohmann::ordered_json to_json() const;
  void from_json(const nlohmann::ordered_json& json);
  void carry_on(const Guard& before);

 private:
  void count_skip(int64_t step);
  GuardAction roll_back_or_stop(int64_t step, int64_t rollback_to);

  GuardOptions options_;
  SpikeDetector detector_;
  int64_t num_skipped_ = 0, num_in_row_ = 0, num_rollbacks_ = 0, num_nonfinite_ = 0, num_incidents_ = 0;
  int64_t rolled_back_to_ = -1, num_to_it_ = 0;
  int64_t last_incident_ = -kReportDistance;  // its step
  std::vector<int64_t> skipped_;              // steps of the last kWindow that were skipped, ascending
  std::vector<int64_t> left_out_;             // steps to leave out, ascending
};

}  // namespace temper::train
