#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace temper::optim {
namespace {

double cosine(double r) { return 0.5 * (1 + std::cos(std::numbers::pi * r)); }

double decay_coefficient(DecayKind decay, double r) {
  switch (decay) {
    case DecayKind::kLinear:
      return 1 - r;
    case DecayKind::kCosine:
      return cosine(r);
    case DecayKind::kMinusSqrt:
      return 1 - std::sqrt(r);
    case DecayKind::kExponential:
      return 2 * std::pow(0.5, r) - 1;
  }
  return 0;
}

}  // namespace

double Schedule::at(int64_t step) const {
  if (step + warmup_offset < warmup_steps) {
    return max_lr * static_cast<double>(step + warmup_offset) / static_cast<double>(warmup_steps);
  }
  if (kind == ScheduleKind::kConstant) return max_lr;
  const int64_t length = kind == ScheduleKind::kWsd ? decay_steps : total_steps - warmup_steps;
  const int64_t into = step - (total_steps - length);
  const double r = length > 0 ? std::clamp(static_cast<double>(into) / static_cast<double>(length), 0.0, 1.0)
                              : (into < 0 ? 0.0 : 1.0);
  double coefficient = 1 - r;
  if (kind == ScheduleKind::kCosine) coefficient = cosine(r);
  if (kind == ScheduleKind::kWsd) coefficient = decay_coefficient(decay, r);
  return min_lr + coefficient * (max_lr - min_lr);
}

ScheduleKind parse_schedule(std::string_view word) {
  if (word == "constant") return ScheduleKind::kConstant;
  if (word == "linear") return ScheduleKind::kLinear;
  if (word == "cosine") return ScheduleKind::kCosine;
  if (word == "wsd") return ScheduleKind::kWsd;
  fail(ErrorCode::kInvalidArgument, "schedule \"{}\" is not known; use constant, linear, cosine or wsd", word);
}

DecayKind parse_decay(std::string_view word) {
  if (word == "linear") return DecayKind::kLinear;
  if (word == "cosine") return DecayKind::kCosine;
  if (word == "minus-sqrt") return DecayKind::kMinusSqrt;
  if (word == "exponential") return DecayKind::kExponential;
  fail(ErrorCode::kInvalidArgument, "decay \"{}\" is not known; use linear, cosine, minus-sqrt or exponential", word);
}

void validate(const Schedule& schedule) {
  const auto& s = schedule;
  if (s.max_lr < 0 || s.min_lr < 0 || s.min_lr > s.max_lr) {
    fail(ErrorCode::kInvalidArgument, "learning rates must satisfy 0 <= min_lr <= lr; found lr {} and min_lr {}",
         s.max_lr, s.min_lr);
  }
  if (s.warmup_steps < 0 || s.decay_steps < 0 || s.warmup_offset < 0 || s.warmup_offset > 1) {
    fail(ErrorCode::kInvalidArgument,
         "warmup_steps {} and decay_steps {} must not be negative and warmup_offset {} must be 0 or 1", s.warmup_steps,
         s.decay_steps, s.warmup_offset);
  }
  if (s.warmup_steps > s.total_steps) {
    fail(ErrorCode::kInvalidArgument, "warm-up of {} steps is longer than the run of {} steps; lower warmup_steps",
         s.warmup_steps, s.total_steps);
  }
  if (s.kind == ScheduleKind::kWsd && s.warmup_steps + s.decay_steps > s.total_steps) {
    fail(ErrorCode::kInvalidArgument,
         "wsd: warm-up of {} and decay of {} steps do not fit in {} steps; lower decay_steps or warmup_steps",
         s.warmup_steps, s.decay_steps, s.total_steps);
  }
}

}  // namespace temper::optim
