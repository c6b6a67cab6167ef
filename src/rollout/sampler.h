// Chooses the next token from logits.
#pragma once

#include <cstdint>
#include <span>

#include "base/philox.h"

namespace temper::rollout {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy, the lowest id of the largest logit
  double top_p = 1;        // keep the smallest set of likeliest tokens whose probability reaches top_p
};

// Draws with random.uniform(step, sequence): the same four numbers give the same token, whatever the batch.
int32_t sample_token(std::span<const double> logits_V, const SamplingOptions& options, const Philox& random,
                     uint64_t step, uint64_t sequence);

}  // namespace temper::rollout
