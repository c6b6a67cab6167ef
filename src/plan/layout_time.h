// How long a step takes on a layout, by formulas: to tell layouts apart, not to promise seconds.
//
//   step = pipeline(F, B, W of every part) + exchange of gradients and weights + optimizer, of the slowest stage
//   F    = FLOPs / flops + bytes of weights / memory + messages          B, W alike; rebuilt layers are part of B
//   messages = number * latency + bytes sent / link + bytes laid out for them / memory
//
// FLOPs are those of parallel/stages.h, shared out evenly but for the attention of contiguous shards (cp): the rank
// that attends to most sets the pace. Every micro-batch reads the weights forward and backward, and reads and writes
// the gradients: what does not get less where a micro-batch is cut into smaller ones. Messages are those of
// layout_traffic.h and, of weights and gradients (post-training 4.2):
//   gradients   2 (n - 1) / n of the bytes once a step with zero 0, half of it with zero 1; with zero 2 and 3, and in
//               exact mode, that half for every micro-batch
//   weights     (n - 1) / n of the bytes after the update; with zero 3 forward and backward of every micro-batch
// The optimizer moves 30 bytes a parameter that a rank owns (docs/performance.md).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "parallel/schedule_time.h"
#include "plan/layout_traffic.h"

namespace temper::plan {

// Of one rank. The defaults are a core of a server's CPU: what matters is how they compare.
struct RankSpeed {
  double flops = 0.4e12;   // a second, of products
  double memory = 40e9;    // bytes a second, read and written
  double link = 5e9;       // bytes a second that reach another rank
  double latency = 10e-6;  // seconds, of every message: ranks of a machine meet in 2 to 5 us, over a network in 5 to 20
  bool operator==(const RankSpeed&) const = default;
};

// Seconds of a step, and what they are made of for the slowest rank.
struct LayoutTime {
  double step = 0;
  double compute = 0;  // forward and backward without any exchange or wait
  double bubble = 0;   // waiting in the pipeline
  double ep = 0, cp = 0, tp = 0, pp = 0, gradients = 0, weights = 0, optimizer = 0;
};
// "1.2 s a step: 1 compute, 0.15 gradients"; parts of less than 1/200 are left out.
std::string describe(const LayoutTime& time);

// What the formulas need of a model, whatever the layout: made once, for many layouts, which are resolved.
class LayoutTimes {
 public:
  // request: without layout; must stay.
  LayoutTimes(const DryRunRequest& request, const RankSpeed& speed);
  LayoutTime of(const parallel::Layout& layout);
  // The same without waiting in the pipeline: no step takes less. Much quicker.
  LayoutTime at_least(const parallel::Layout& layout);
  // Of a step, what a rank of the stage sends to those that have the same weights.
  Messages of_weights(const parallel::Layout& layout, int64_t stage);
  // Values, gradients, masters and moments of the heaviest rank, in bytes: its Book has no less.
  double parameter_bytes(const parallel::Layout& layout);

 private:
  // Parameters, and bytes of their values. Of all ranks.
  struct Size {
    double count = 0, elements = 0, value_bytes = 0;
    double masters = 0;  // elements that have one beside their value
    void add(const Size& other);
  };
  struct Stage {
    double flops = 0;         // forward, of a micro-batch, of all ranks
    double excess_flops = 0;  // by which the shard that attends to most has more than the mean one; of all tp ranks
    double num_units = 0;     // layers, and the prediction block; a site counts half
    Size dense, slices, experts;
    Size end_dense, end_slices;  // of the embedding, the final norm and the head, which zero 2 and 3 keep whole
    Traffic traffic;
    void add(const Stage& other);
  };
  // What of it a rank has, how many have the same, and whether it comes and goes with zero 2 and 3.
  struct Share {
    const Size& size;
    double cut;
    int64_t ranks;
    bool is_end;
  };
  struct Exchanged {
    Messages gradients, weights;
  };
  std::vector<Share> shares(const Stage& stage, const parallel::Layout& layout) const;
  Stage with_parameters(const layers::ParameterList& parameters, double num_units) const;
  const CutRow& row_of(int64_t cp);
  double excess_flops(model::AttentionKind kind, int64_t cp);
  // By part of the pipeline.
  std::vector<Stage> parts_of(const parallel::Layout& layout);
  std::vector<Stage> stages_of(const parallel::Layout& layout, const std::vector<Stage>& parts) const;
  int64_t micro_batches_of_rank(const parallel::Layout& layout) const;
  double seconds(const Messages& messages) const;
  bool reduces_each(const parallel::Layout& layout) const { return layout.zero >= 2 || request_.options.part.exact(); }
  Exchanged exchanged(const Stage& stage, const parallel::Layout& layout) const;  // in a step
  LayoutTime of_stage(const Stage& stage, const parallel::Layout& layout, parallel::PartTimes& pass) const;
  double slowest(const parallel::Layout& layout, const std::vector<Stage>& parts, LayoutTime& time, double& end) const;

  const DryRunRequest& request_;
  RankSpeed speed_;
  parallel::SiteCosts costs_;
  std::vector<Stage> site_S_;  // parameters and FLOPs
  Stage embedding_, last_;     // what the first and the last part have besides
  double act_bytes_ = 0, acc_bytes_ = 0;
  std::map<std::pair<int64_t, int64_t>, std::vector<parallel::SiteRange>> cuts_;  // by pp and chunks
  std::map<int64_t, CutRow> rows_;                                                // by cp
  std::map<std::pair<int64_t, model::AttentionKind>, double> excess_;             // by cp and kind
};

}  // namespace temper::plan
