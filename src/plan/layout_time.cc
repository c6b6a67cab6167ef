#include "plan/layout_time.h"

#include <algorithm>
#include <numeric>

#include "model/model.h"
#include "model/parameter_memory.h"
#include "parallel/schedule_time.h"

namespace temper::plan {
namespace {

constexpr double kOptimizerBytes = 30;  // an element: master, m, v read and written, gradient read, value written

double share_sent(int64_t ranks) { return static_cast<double>(ranks - 1) / static_cast<double>(ranks); }

}  // namespace

LayoutTimes::LayoutTimes(const DryRunRequest& request, const RankSpeed& speed) : request_(request), speed_(speed) {
  const model::ModelOptions& options = request.options;
  const int64_t document = options.max_document > 0 ? options.max_document : options.max_tokens;
  costs_ = parallel::forward_flops(request.config, document, options.mtp);
  costs_.rebuilds = options.recompute != model::Recompute::kNone;
  act_bytes_ = static_cast<double>(dtype_bytes(layers::act_dtype(options.precision)));
  acc_bytes_ = static_cast<double>(dtype_bytes(layers::acc_dtype(options.precision)));
  const auto T = static_cast<double>(options.max_tokens);
  const model::Model model(request.config, options);
  for (size_t s = 0; s < costs_.site_S.size(); ++s) {
    Stage& site = site_S_.emplace_back(with_parameters(model.site_parameters(static_cast<int64_t>(s))));
    (s % 2 == 0 ? site.num_attentions : site.num_experts) = 1;
    site.flops = costs_.site_S[s] * T;
  }
  const layers::ParameterList& ends = model.units().back();
  embedding_ = with_parameters({ends.front()});
  last_ = with_parameters({ends.begin() + 1, ends.end()});
  if (options.mtp) last_.add(with_parameters(model.units()[request.config.num_hidden_layers]));
  last_.flops = costs_.last * T;
}

LayoutTimes::Stage LayoutTimes::with_parameters(const layers::ParameterList& parameters) {
  Stage stage;
  for (const layers::Parameter* p : parameters) {
    if (!p->trainable) continue;
    const auto elements = static_cast<double>(p->shape.size());
    (model::is_expert(*p) ? stage.experts : stage.dense)
        .add({elements, elements * static_cast<double>(dtype_bytes(p->dtype))});
  }
  return stage;
}

int64_t LayoutTimes::micro_batches_of_rank(const parallel::Layout& layout) const {
  return (request_.num_micro_batches + layout.dp - 1) / layout.dp;
}

void LayoutTimes::Stage::add(const Stage& other) {
  flops += other.flops, num_attentions += other.num_attentions, num_experts += other.num_experts;
  dense.add(other.dense), experts.add(other.experts);
}

std::vector<LayoutTimes::Stage> LayoutTimes::parts_of(const parallel::Layout& layout) const {
  std::vector<Stage> parts;
  for (const parallel::SiteRange& sites : parallel::split_sites(costs_, layout.pp, layout.chunks)) {
    Stage& part = parts.emplace_back();
    for (int64_t s = sites.begin; s < sites.end; ++s) part.add(site_S_[s]);
  }
  parts.front().add(embedding_), parts.back().add(last_);
  if (request_.options.mtp && layout.pp > 1) parts.back().add(embedding_);
  return parts;
}

// One way, a reduce-scatter or an all-gather, of all that the stage has.
double LayoutTimes::exchange_seconds(const Stage& stage, const parallel::Layout& layout, bool of_values) const {
  const int64_t ranks = layout.dp * layout.cp * layout.tp;
  const auto bytes = [&](const Size& size) { return of_values ? size.value_bytes : size.elements * acc_bytes_; };
  const double dense = bytes(stage.dense) * share_sent(ranks);
  const double experts = bytes(stage.experts) / static_cast<double>(layout.ep) * share_sent(ranks / layout.ep);
  return (dense + experts) / speed_.link;
}

// The layout's times of one stage but for the bubble, and its passes over a micro-batch; step: what is after them.
LayoutTime LayoutTimes::of_stage(const Stage& stage, const parallel::Layout& layout, parallel::PartTimes& pass) const {
  const model::Config& config = request_.config;
  const auto m = static_cast<double>(micro_batches_of_rank(layout));
  const int64_t ranks = layout.dp * layout.cp * layout.tp;
  const bool rebuilds = request_.options.recompute != model::Recompute::kNone;
  const bool each_micro_batch = layout.zero >= 2 || request_.options.part.exact();
  const double hidden_rows = static_cast<double>(request_.options.max_tokens / layout.cp * config.hidden_size);

  // Of a micro-batch: forward, to the experts and back, a vector to the next stage, all gradients, all weights.
  const double forward = stage.flops / static_cast<double>(layout.cp * layout.tp) / speed_.flops;
  const double again = rebuilds ? forward : 0;
  const double experts = 2 * hidden_rows * static_cast<double>(config.num_experts_per_tok * stage.num_experts) *
                         act_bytes_ * share_sent(layout.ep) / speed_.link;
  const double streams =
      layout.pp > 1 ? hidden_rows * static_cast<double>(config.hc_mult) / speed_.link : 0;  // for each byte of one
  const double gradients = exchange_seconds(stage, layout, false) * (layout.zero == 0 ? 2 : 1);
  const double weights = exchange_seconds(stage, layout, true);

  LayoutTime t;
  t.compute = m * (3 * forward + again);
  t.experts = m * experts * (rebuilds ? 3 : 2);
  t.stages = m * streams * (act_bytes_ + acc_bytes_);
  t.gradients = (each_micro_batch ? m : 1) * gradients;
  t.weights = layout.zero == 0 ? 0 : layout.zero == 3 ? 2 * m * weights : weights;
  const auto owners = static_cast<double>(layout.zero == 0 ? 1 : ranks);
  const auto expert_owners = static_cast<double>(layout.zero == 0 ? layout.ep : ranks);
  t.optimizer =
      kOptimizerBytes * (stage.dense.elements / owners + stage.experts.elements / expert_owners) / speed_.memory;

  const double gathered = layout.zero == 3 ? weights : 0, reduced = each_micro_batch ? gradients : 0;
  pass.forward = forward + experts + streams * act_bytes_ + gathered;
  pass.backward_input = forward + again + experts * (rebuilds ? 2 : 1) + streams * acc_bytes_ + gathered + reduced;
  pass.backward_weight = forward;
  t.step = (each_micro_batch ? 0 : t.gradients) + (layout.zero == 3 ? 0 : t.weights) + t.optimizer;
  return t;
}

LayoutTime LayoutTimes::of(const parallel::Layout& layout) const {
  const int64_t m = micro_batches_of_rank(layout);
  const std::vector<Stage> parts = parts_of(layout);
  std::vector<Stage> stages(layout.pp);
  std::vector<parallel::PartTimes> passes(parts.size());
  for (size_t p = 0; p < parts.size(); ++p) {
    of_stage(parts[p], layout, passes[p]);
    stages[p % stages.size()].add(parts[p]);
  }
  LayoutTime slowest;
  double longest_work = -1, longest_end = 0;
  for (const Stage& stage : stages) {
    parallel::PartTimes pass;
    const LayoutTime t = of_stage(stage, layout, pass);
    const double work = static_cast<double>(m) * (pass.forward + pass.backward_input + pass.backward_weight);
    longest_end = std::max(longest_end, t.step);
    if (work > longest_work) slowest = t, longest_work = work;
  }
  const auto lists = parallel::pipeline_lists(layout.schedule, layout.pp, layout.chunks, m);
  const double makespan = parallel::simulate(lists, passes, 0).makespan;
  slowest.bubble = std::max(0.0, makespan - longest_work);
  slowest.step = makespan + longest_end;
  return slowest;
}

}  // namespace temper::plan
