// How long a step takes on a layout, by formulas: to tell layouts apart, not to promise seconds.
//
//   step = pipeline(F, B, W of every stage) + exchange of gradients and weights + optimizer, of the slowest stage
//   F    = FLOPs / flops + bytes sent in it / link          B, W alike; rebuilt layers are part of B
//
// FLOPs are those of parallel/stages.h; what ranks send is what the step sends (post-training 4.2, 4.3, 4.6):
//   experts     rows to their experts and back, forward and backward: (ep - 1) / ep of K hidden vectors a token, twice
//   stages      the residual streams forward, their gradients backward
//   gradients   2 (n - 1) / n of the bytes once a step with zero 0, half of it with zero 1; with zero 2 and 3, and in
//               exact mode, that half for every micro-batch
//   weights     (n - 1) / n of the bytes after the update; with zero 3 forward and backward of every micro-batch
// and the optimizer moves 30 bytes a parameter that a rank owns (docs/performance.md).
#pragma once

#include <cstdint>

#include "parallel/schedule_time.h"
#include "plan/dry_run.h"

namespace temper::plan {

// Of one rank. The defaults are a core of a server's CPU: what matters is how they compare.
struct RankSpeed {
  double flops = 0.4e12;  // a second, of products
  double memory = 40e9;   // bytes a second, read and written
  double link = 5e9;      // bytes a second that reach another rank
  bool operator==(const RankSpeed&) const = default;
};

// Seconds of a step, and what they are made of for the slowest rank.
struct LayoutTime {
  double step = 0;
  double compute = 0;  // forward and backward without any exchange or wait
  double bubble = 0;   // waiting in the pipeline
  double experts = 0, stages = 0, gradients = 0, weights = 0, optimizer = 0;
};

// What the formulas need of a model, whatever the layout: made once, for many layouts.
class LayoutTimes {
 public:
  // request: without layout.
  LayoutTimes(const DryRunRequest& request, const RankSpeed& speed);
  // layout: resolved.
  LayoutTime of(const parallel::Layout& layout) const;

 private:
  // Elements of parameters and bytes of their values.
  struct Size {
    double elements = 0, value_bytes = 0;
    void add(const Size& other) { elements += other.elements, value_bytes += other.value_bytes; }
  };
  struct Stage {
    double flops = 0;                             // forward, of a micro-batch
    int64_t num_attentions = 0, num_experts = 0;  // layers that it has the attention and the experts of
    Size dense, experts;
    void add(const Stage& other);
  };
  static Stage with_parameters(const layers::ParameterList& parameters);
  // By part of the pipeline.
  std::vector<Stage> parts_of(const parallel::Layout& layout) const;
  int64_t micro_batches_of_rank(const parallel::Layout& layout) const;
  double exchange_seconds(const Stage& stage, const parallel::Layout& layout, bool of_values) const;
  LayoutTime of_stage(const Stage& stage, const parallel::Layout& layout, parallel::PartTimes& pass) const;

  const DryRunRequest& request_;
  RankSpeed speed_;
  parallel::SiteCosts costs_;
  Stage embedding_, last_;     // what the first and the last part have besides their sites
  std::vector<Stage> site_S_;  // a part of one site each
  double act_bytes_ = 0, acc_bytes_ = 0;
};

}  // namespace temper::plan
