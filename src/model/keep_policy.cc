#include "model/keep_policy.h"

#include <cmath>

namespace temper::model {

KeepPlan make_keep_plan(Recompute recompute, int64_t num_layers, bool train) {
  KeepPlan plan;
  plan.share_saved = !train || recompute != Recompute::kNone;
  plan.stream_buffer.resize(num_layers + 1);
  if (!train) {
    plan.num_stream_buffers = 2;
    for (int64_t l = 0; l <= num_layers; ++l) plan.stream_buffer[l] = l % 2;
    return plan;
  }
  if (recompute != Recompute::kFull) {
    plan.num_stream_buffers = num_layers + 1;
    for (int64_t l = 0; l <= num_layers; ++l) plan.stream_buffer[l] = l;
    return plan;
  }
  plan.segment = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(num_layers))));
  const int64_t num_segments = (num_layers + plan.segment - 1) / plan.segment;
  // Buffers: one per segment start, one for the streams after the last block, then the inside of a segment, shared.
  for (int64_t l = 0; l < num_layers; ++l) {
    const bool starts = l % plan.segment == 0;
    plan.stream_buffer[l] = starts ? l / plan.segment : num_segments + l % plan.segment;
  }
  plan.stream_buffer[num_layers] = num_segments;
  plan.num_stream_buffers = num_segments + plan.segment;
  return plan;
}

}  // namespace temper::model
