#include "plan/layout_time.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "model/model.h"
#include "model/parameter_memory.h"

namespace temper::plan {
namespace {

constexpr double kOptimizerBytes = 30;  // an element: master, m, v read and written, gradient read, value written

// A number of ranks that can cut the heads, output groups and words of the model; 1: there is none.
int64_t some_tp(const model::Config& c) {
  const int64_t common = std::gcd(std::gcd(c.num_attention_heads, c.o_groups), c.vocab_size);
  for (int64_t tp = 2; tp <= common; ++tp)
    if (common % tp == 0) return tp;
  return 1;
}

}  // namespace

std::string describe(const LayoutTime& t) {
  std::string words = fmt::format("{:.4g} s a step: {:.4g} compute", t.step, t.compute);
  for (const auto& [name, seconds] : {std::pair{"waiting in the pipeline", t.bubble},
                                      {"ep", t.ep},
                                      {"cp", t.cp},
                                      {"tp", t.tp},
                                      {"pp", t.pp},
                                      {"gradients", t.gradients},
                                      {"weights", t.weights},
                                      {"optimizer", t.optimizer}})
    if (seconds > 0.005 * t.step) words += fmt::format(", {:.4g} {}", seconds, name);
  return words;
}

void LayoutTimes::Size::add(const Size& other) {
  count += other.count, elements += other.elements, value_bytes += other.value_bytes, masters += other.masters;
}

void LayoutTimes::Stage::add(const Stage& other) {
  flops += other.flops, excess_flops += other.excess_flops, num_units += other.num_units;
  dense.add(other.dense), slices.add(other.slices), experts.add(other.experts);
  end_dense.add(other.end_dense), end_slices.add(other.end_slices);
  traffic.add(other.traffic);
}

LayoutTimes::LayoutTimes(const DryRunRequest& request, const RankSpeed& speed) : request_(request), speed_(speed) {
  model::ModelOptions options = request.options;
  options.part.tp_size = some_tp(request.config);  // so that parameters say whether they are cut
  const int64_t document = options.max_document > 0 ? options.max_document : options.max_tokens;
  const auto T = static_cast<double>(options.max_tokens);
  costs_ = parallel::forward_flops(request.config, document, options.mtp);
  costs_.rebuilds = options.recompute != model::Recompute::kNone;
  act_bytes_ = static_cast<double>(dtype_bytes(layers::act_dtype(options.precision)));
  acc_bytes_ = static_cast<double>(dtype_bytes(layers::acc_dtype(options.precision)));
  const model::Model model(request.config, options);
  for (size_t s = 0; s < costs_.site_S.size(); ++s) {
    Stage& site = site_S_.emplace_back(with_parameters(model.site_parameters(static_cast<int64_t>(s)), 0.5));
    site.flops = costs_.site_S[s] * T;
  }
  const layers::ParameterList& ends = model.units().back();
  embedding_ = with_parameters({ends.front()}, 0);
  last_ = with_parameters({ends.begin() + 1, ends.end()}, 0);
  if (options.mtp) last_.add(with_parameters(model.units()[request.config.num_hidden_layers], 1));
  last_.flops = costs_.last * T;
}

LayoutTimes::Stage LayoutTimes::with_parameters(const layers::ParameterList& parameters, double num_units) const {
  Stage stage;
  stage.num_units = num_units;
  const bool is_end = num_units == 0;
  for (const layers::Parameter* p : parameters) {
    if (!p->trainable) continue;
    const auto elements = static_cast<double>(p->whole_shape().size());
    Size& dense = is_end ? stage.end_dense : stage.dense;
    Size& slices = is_end ? stage.end_slices : stage.slices;
    Size& size = model::is_expert(*p) ? stage.experts : model::is_slice(*p) ? slices : dense;
    const bool has_master = p->dtype != layers::acc_dtype(request_.options.precision);
    size.add({1, elements, elements * static_cast<double>(dtype_bytes(p->dtype)), has_master ? elements : 0});
  }
  return stage;
}

std::vector<LayoutTimes::Share> LayoutTimes::shares(const Stage& stage, const parallel::Layout& layout) const {
  const int64_t slices = layout.dp * layout.cp, ranks = slices * layout.tp;
  const auto tp = static_cast<double>(layout.tp), ep = static_cast<double>(layout.ep);
  return {{stage.dense, 1, ranks, false},
          {stage.slices, tp, slices, false},
          {stage.experts, ep, ranks / layout.ep, false},
          {stage.end_dense, 1, ranks, true},
          {stage.end_slices, tp, slices, true}};
}

int64_t LayoutTimes::micro_batches_of_rank(const parallel::Layout& layout) const {
  return (request_.num_micro_batches + layout.dp - 1) / layout.dp;
}

const CutRow& LayoutTimes::row_of(int64_t cp) { return rows_.try_emplace(cp, request_, cp).first->second; }

double LayoutTimes::excess_flops(model::AttentionKind kind, int64_t cp) {
  const auto [found, is_new] = excess_.try_emplace({cp, kind}, 0);
  if (cp == 1 || !is_new) return found->second;
  double most = 0, sum = 0;
  for (int64_t rank = 0; rank < cp; ++rank) {
    const double flops = row_of(cp).attention_flops(request_.config, kind, rank);
    most = std::max(most, flops), sum += flops;
  }
  return found->second = most - sum / static_cast<double>(cp);
}

std::vector<LayoutTimes::Stage> LayoutTimes::parts_of(const parallel::Layout& layout) {
  const auto [cut, is_new] = cuts_.try_emplace({layout.pp, layout.chunks});
  if (is_new) cut->second = parallel::split_sites(costs_, layout.pp, layout.chunks);
  // The last shard of a document attends to most, and makes no entries that others wait for longer.
  const LayoutTraffic traffic(request_, layout, row_of(layout.cp), layout.cp - 1, 0);
  const int64_t L = request_.config.num_hidden_layers;
  std::vector<Stage> parts;
  for (const parallel::SiteRange& sites : cut->second) {
    Stage& part = parts.emplace_back();
    for (int64_t s = sites.begin; s < sites.end; ++s) {
      const bool is_attention = s % 2 == 0;
      part.add(site_S_[s]);
      part.traffic.add(is_attention ? traffic.attention(s / 2) : traffic.experts(s / 2));
      if (is_attention) part.excess_flops += excess_flops(request_.config.layer_types[s / 2], layout.cp);
    }
  }
  parts.front().add(embedding_), parts.front().traffic.add(traffic.embedding());
  parts.back().add(last_), parts.back().traffic.add(traffic.head());
  if (!request_.options.mtp) return parts;
  if (layout.pp > 1) parts.back().add(embedding_);
  for (const Traffic& t : {traffic.embedding(), traffic.attention(L), traffic.experts(L), traffic.head()})
    parts.back().traffic.add(t);
  return parts;
}

std::vector<LayoutTimes::Stage> LayoutTimes::stages_of(const parallel::Layout& layout,
                                                       const std::vector<Stage>& parts) const {
  std::vector<Stage> stages(layout.pp);
  for (size_t p = 0; p < parts.size(); ++p) stages[p % stages.size()].add(parts[p]);
  return stages;
}

double LayoutTimes::seconds(const Messages& m) const {
  return m.calls * speed_.latency + m.sent / speed_.link + m.moved / speed_.memory;
}

LayoutTimes::Exchanged LayoutTimes::exchanged(const Stage& stage, const parallel::Layout& layout) const {
  const auto m = static_cast<double>(micro_batches_of_rank(layout));
  // The last layer of a pass is the first of the next one, which finds its weights there.
  const double n = std::max(stage.num_units, 1.0);
  Exchanged out;
  for (const Share& share : shares(stage, layout)) {
    Messages gradients, weights;
    const double gradient_bytes = share.size.elements * acc_bytes_ / share.cut;
    if (layout.zero == 0) {
      gradients.all_reduce(gradient_bytes, share.ranks);
    } else {
      gradients.gather(gradient_bytes, share.ranks);
      weights.gather(share.size.value_bytes / share.cut, share.ranks);
    }
    gradients.calls *= share.size.count, weights.calls *= share.size.count;
    const bool each = request_.options.part.exact() || (layout.zero >= 2 && !share.is_end);
    out.gradients.add(gradients, each ? m : 1);
    out.weights.add(weights, layout.zero == 3 && !share.is_end ? 2 * m * (n - 1) / n : 1);
  }
  return out;
}

// The layout's times of one stage but for the bubble, and its passes over a micro-batch; step: what is after them.
LayoutTime LayoutTimes::of_stage(const Stage& stage, const parallel::Layout& layout, parallel::PartTimes& pass) const {
  const auto m = static_cast<double>(micro_batches_of_rank(layout));
  const bool rebuilds = request_.options.recompute != model::Recompute::kNone;
  const bool reduces = reduces_each(layout);
  const LayoutTraffic traffic(request_, layout, rows_.at(layout.cp), layout.cp - 1, 0);

  // Of a micro-batch.
  double value_bytes = 0, gradient_bytes = 0, owned = 0;
  for (const Share& share : shares(stage, layout)) {
    value_bytes += share.size.value_bytes / share.cut;
    gradient_bytes += share.size.elements / share.cut * acc_bytes_;
    owned += share.size.elements / share.cut / static_cast<double>(layout.zero == 0 ? 1 : share.ranks);
  }
  const double products = (stage.flops / static_cast<double>(layout.cp) + stage.excess_flops) /
                          static_cast<double>(layout.tp) / speed_.flops;
  const double forward = products + value_bytes / speed_.memory, again = rebuilds ? forward : 0;
  const double weight_products = products + 2 * gradient_bytes / speed_.memory;
  PassTraffic back = stage.traffic.backward;
  if (rebuilds) back.add(stage.traffic.rebuilt);
  const PassTraffic& there = stage.traffic.forward;
  const auto stream = [&](double bytes) {
    return layout.pp > 1 ? speed_.latency + traffic.stream_bytes(bytes) / speed_.link : 0;
  };
  const Exchanged ranks = exchanged(stage, layout);

  LayoutTime t;
  t.compute = m * (2 * forward + again + weight_products);
  t.ep = m * (seconds(there.ep) + seconds(back.ep));
  t.cp = m * (seconds(there.cp) + seconds(back.cp));
  t.tp = m * (seconds(there.tp) + seconds(back.tp));
  t.pp = m * (stream(act_bytes_) + stream(acc_bytes_));
  t.gradients = seconds(ranks.gradients), t.weights = seconds(ranks.weights);
  t.optimizer = kOptimizerBytes * owned / speed_.memory;

  const double gathered = layout.zero == 3 ? t.weights / (2 * m) : 0, reduced = reduces ? t.gradients / m : 0;
  const auto messages = [&](const PassTraffic& p) { return seconds(p.cp) + seconds(p.tp) + seconds(p.ep); };
  pass.forward = forward + messages(there) + stream(act_bytes_) + gathered;
  pass.backward_input = forward + again + messages(back) + stream(acc_bytes_) + gathered + reduced;
  pass.backward_weight = weight_products;
  t.step = (reduces ? 0 : t.gradients) + (layout.zero == 3 ? 0 : t.weights) + t.optimizer;
  return t;
}

// The work of the slowest stage, which time is of; end: the longest of what comes after the last pass.
double LayoutTimes::slowest(const parallel::Layout& layout, const std::vector<Stage>& parts, LayoutTime& time,
                            double& end) const {
  const auto m = static_cast<double>(micro_batches_of_rank(layout));
  double longest = -1;
  end = 0;
  for (const Stage& stage : stages_of(layout, parts)) {
    parallel::PartTimes pass;
    const LayoutTime t = of_stage(stage, layout, pass);
    const double work = m * (pass.forward + pass.backward_input + pass.backward_weight);
    end = std::max(end, t.step);
    if (work > longest) time = t, longest = work;
  }
  return longest;
}

LayoutTime LayoutTimes::at_least(const parallel::Layout& layout) {
  LayoutTime time;
  double end = 0;
  const double work = slowest(layout, parts_of(layout), time, end);
  time.step = work + end;
  return time;
}

Messages LayoutTimes::of_weights(const parallel::Layout& layout, int64_t stage) {
  const Exchanged ranks = exchanged(stages_of(layout, parts_of(layout))[stage], layout);
  Messages all = ranks.gradients;
  all.add(ranks.weights);
  return all;
}

LayoutTime LayoutTimes::of(const parallel::Layout& layout) {
  const std::vector<Stage> parts = parts_of(layout);
  LayoutTime time;
  double end = 0;
  const double work = slowest(layout, parts, time, end);
  std::vector<parallel::PartTimes> passes(parts.size());
  for (size_t p = 0; p < parts.size(); ++p) of_stage(parts[p], layout, passes[p]);
  const auto lists = parallel::pipeline_lists(layout.schedule, layout.pp, layout.chunks, micro_batches_of_rank(layout));
  const double makespan = parallel::simulate(lists, passes, 0).makespan;
  time.bubble = std::max(0.0, makespan - work);
  time.step = std::max(makespan, work) + end;
  return time;
}

double LayoutTimes::parameter_bytes(const parallel::Layout& layout) {
  double most = 0;
  for (const Stage& stage : stages_of(layout, parts_of(layout))) {
    double bytes = 0;
    for (const Share& share : shares(stage, layout)) {
      const auto of_zero = [&](int64_t level) {
        return layout.zero >= level && !(share.is_end && level > 1) ? static_cast<double>(share.ranks) : 1;
      };
      const Size& size = share.size;
      bytes += (size.value_bytes / of_zero(3) + size.elements * acc_bytes_ / of_zero(2) +
                (2 * size.elements + size.masters) * acc_bytes_ / of_zero(1)) /
               share.cut;
    }
    most = std::max(most, bytes);
  }
  return most;
}

}  // namespace temper::plan
