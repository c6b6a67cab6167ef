// Learning rate as a function of the optimizer step.
//
//   warm-up   lr = max * (s + warmup_offset) / W                               while s + warmup_offset < W
//   constant  lr = max
//   linear    lr = min + (1 - r) (max - min)                                   r = (s - W) / (N - W)
//   cosine    lr = min + (1 + cos(pi r)) / 2 (max - min)                       same r
//   wsd       lr = max until N - D, then min + coef(r) (max - min)             r = (s - (N - D)) / D
//             coef: linear 1 - r | cosine (1 + cos(pi r)) / 2 | minus-sqrt 1 - sqrt(r) | exponential 2 * 0.5^r - 1
// with s the 0-based step, W warm-up, N total and D decay steps. warmup_offset 0 gives the first step a rate of 0, as
// in Hugging Face and Megatron; 1 starts at max / W. Source: post-training 3.6; wsd as in Megatron-LM.
#pragma once

#include <cstdint>
#include <string_view>

namespace temper::optim {

enum class ScheduleKind : uint8_t { kConstant, kLinear, kCosine, kWsd };
enum class DecayKind : uint8_t { kLinear, kCosine, kMinusSqrt, kExponential };

struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  DecayKind decay = DecayKind::kCosine;  // of wsd
  double max_lr = 0, min_lr = 0;
  int64_t warmup_steps = 0, decay_steps = 0, total_steps = 0;
  int64_t warmup_offset = 0;  // 0 or 1

  // Rate of a 0-based step; at and after total_steps the final one.
  double at(int64_t step) const;
};

// From the words of RUN.toml: constant | linear | cosine | wsd, and linear | cosine | minus-sqrt | exponential.
// Throws kInvalidArgument.
ScheduleKind parse_schedule(std::string_view word);
DecayKind parse_decay(std::string_view word);

// Refuses (kInvalidArgument) negative counts, warm-up longer than the run, wsd whose decay does not fit, min above max.
void validate(const Schedule& schedule);

}  // namespace temper::optim
