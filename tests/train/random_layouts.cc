#include "train/random_layouts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/philox.h"

namespace temper::train::testing {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t number) : random_{number, RandomPurpose::kTest} {}
  int64_t below(int64_t end) { return static_cast<int64_t>(random_.below(0, next_++, end)); }
  int64_t between(int64_t least, int64_t most) { return least + below(most - least + 1); }
  bool chance(int64_t percent) { return below(100) < percent; }

 private:
  Philox random_;
  uint64_t next_ = 0;
};

int64_t divisor_up_to(Draw& draw, int64_t number, int64_t most) {
  std::vector<int64_t> divisors;
  for (int64_t d = 1; d <= std::min(number, most); ++d)
    if (number % d == 0) divisors.push_back(d);
  return divisors[draw.below(static_cast<int64_t>(divisors.size()))];
}

parallel::Layout random_layout(Draw& draw, int64_t world_size) {
  const model::Config config = layout_config();
  parallel::Layout layout;
  layout.pp = divisor_up_to(draw, world_size, 2 * config.num_hidden_layers);
  const int64_t stage = world_size / layout.pp;
  layout.cp = draw.chance(50) ? divisor_up_to(draw, stage, 4) : 1;
  do {
    layout.tp = draw.chance(50) ? divisor_up_to(draw, stage / layout.cp, config.o_groups) : 1;
  } while (config.o_groups % layout.tp != 0);
  layout.dp = stage / layout.cp / layout.tp;
  do {
    layout.ep = divisor_up_to(draw, stage, config.n_routed_experts);
  } while (config.n_routed_experts % layout.ep != 0);
  layout.zero = draw.below(4);
  return layout;
}

// Of a pipeline. Where stages have several chunks, the model gets half as many layers at least.
void draw_schedule(Draw& draw, RandomCase& c) {
  if (c.layout.pp == 1) return;
  c.layout.schedule = parallel::kSchedules[draw.below(std::ssize(parallel::kSchedules))];
  if (c.layout.schedule == parallel::Schedule::kZeroBubble) c.trained.options.recompute = model::Recompute::kNone;
  if (c.layout.schedule != parallel::Schedule::kInterleaved) return;
  c.layout.chunks = draw.between(2, 3);
  c.trained.config = layout_config(std::max<int64_t>(3, (c.layout.chunks * c.layout.pp + 1) / 2));
}

// Another order of the three kinds of attention, other layers that route by token id, shapes at their limits.
void draw_model(Draw& draw, model::Config& config) {
  if (draw.chance(50))
    std::rotate(config.layer_types.begin(), config.layer_types.begin() + 1, config.layer_types.end());
  for (size_t l = 0; l < config.is_hash_moe.size(); ++l) config.is_hash_moe[l] = draw.chance(30);
  config.sliding_window = draw.between(1, 20);
  config.index_topk = draw.between(1, 6);
  config.num_experts_per_tok = draw.between(1, 4);
  config.hc_mult = draw.between(2, 4);
}

// What is not trained: nothing, in half of the cases, or what one to three patterns name.
std::vector<std::string> draw_frozen(Draw& draw, bool mtp) {
  std::vector<std::string> patterns = {
      "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.*", "model.layers.1.*", "*.mlp.experts.*",
      "*.mlp.gate.weight",         "*.self_attn.*",  "*norm.weight",     "*_hc.*",           "model.layers.*"};
  if (mtp) patterns.insert(patterns.end(), {"mtp.*", "mtp.0.self_attn.*"});
  std::vector<std::string> frozen;
  if (draw.chance(50)) return frozen;
  for (int64_t left = draw.between(1, 3); left > 0; --left)
    frozen.push_back(patterns[draw.below(std::ssize(patterns))]);
  return frozen;
}

// Trained here and there, with other weights.
void mask(Draw& draw, layers::MicroBatch& batch) {
  for (size_t t = 0; t < batch.targets.size(); ++t) {
    if (draw.chance(60)) batch.targets[t] = -1, batch.weights[t] = 0;
    if (batch.targets[t] >= 0) batch.weights[t] = static_cast<float>(draw.between(0, 4)) / 2;
  }
}

layers::MicroBatch random_batch(Draw& draw, int64_t vocab_size) {
  std::vector<int64_t> lengths;
  for (int64_t left = draw.between(1, 4); left > 0; --left) lengths.push_back(draw.between(1, 45));
  layers::MicroBatch batch =
      pack_row(random_documents(lengths, vocab_size, static_cast<uint64_t>(draw.below(1 << 30))));
  if (draw.chance(30)) mask(draw, batch);
  if (draw.chance(20)) {
    std::fill(batch.targets.begin(), batch.targets.end(), -1);
    std::fill(batch.weights.begin(), batch.weights.end(), 0.0f);
  }
  return batch;
}

bool has_target(const std::vector<layers::MicroBatch>& batches) {
  return std::any_of(batches.begin(), batches.end(), [](const layers::MicroBatch& batch) {
    return std::any_of(batch.weights.begin(), batch.weights.end(), [](float weight) { return weight > 0; });
  });
}

}  // namespace

RandomCase random_case(uint64_t number, int64_t world_size) {
  Draw draw(number * 64 + static_cast<uint64_t>(world_size));
  RandomCase c;
  c.layout = random_layout(draw, world_size);
  const int64_t num_batches = draw.between(1, 2 * c.layout.dp);
  for (int step = 0; step < 2; ++step) {
    auto& batches = c.trained.steps.emplace_back();
    do {
      batches.clear();
      for (int64_t m = 0; m < num_batches; ++m) batches.push_back(random_batch(draw, layout_config().vocab_size));
    } while (!has_target(batches));
  }
  auto& options = c.trained.options;
  options.precision = layers::Precision::kFp32;
  options.logit_chunk = draw.between(8, 64);
  options.recompute =
      std::array{model::Recompute::kNone, model::Recompute::kBlock, model::Recompute::kFull}[draw.below(3)];
  options.mtp = draw.chance(50);
  options.indexer =
      std::array{model::IndexerUse::kFrozen, model::IndexerUse::kTrain, model::IndexerUse::kWarmUp}[draw.below(3)];
  c.trained.auxiliary = {.mtp = options.mtp ? 0.3 : 0.0,
                         .balance = draw.chance(50) ? 0.1 : 0.0,
                         .indexer = 0.5,
                         .bias_update_speed = draw.chance(50) ? 1e-3 : 0.0};
  c.trained.has_expert_rounds = draw.chance(50);
  c.trained.exact = draw.chance(50);
  c.trained.rebalances = draw.chance(30);
  c.trained.skipped_step = draw.chance(20) ? 0 : -1;
  c.trained.evaluates = draw.chance(30);
  c.trained.max_grad_norm = std::array{0.0, 0.05, 1.0}[draw.below(3)];
  if (draw.chance(30)) c.trained.adamw.weight_decay = 0;
  if (draw.chance(30)) c.trained.objective.reduction = objective::ObjectiveOptions::Reduction::kSample;
  if (draw.chance(30)) c.trained.objective.dft = true;
  draw_schedule(draw, c);
  draw_model(draw, c.trained.config);
  options.frozen = draw_frozen(draw, options.mtp);
  if (draw.chance(30)) options.precision = layers::Precision::kFp64;
  c.layout.overlap = draw.chance(30);
  c.description = fmt::format(
      "case {} of {} ranks: {}; {} micro-batches, recompute {}, indexer {}{}{}{}{}{}{}{}{}", number, world_size,
      c.layout.to_string(), num_batches, static_cast<int>(options.recompute), static_cast<int>(options.indexer),
      options.mtp ? ", prediction block" : "", c.trained.has_expert_rounds ? ", expert rounds" : "",
      c.trained.exact ? ", exact" : "", options.precision == layers::Precision::kFp64 ? ", fp64" : "",
      c.trained.rebalances ? ", rebalanced" : "", c.trained.skipped_step >= 0 ? ", a step skipped" : "",
      c.trained.evaluates ? ", evaluated" : "",
      options.frozen.empty() ? "" : fmt::format(", frozen {}", fmt::join(options.frozen, " ")));
  return c;
}

std::string check_case(comm::Comm& world, const RandomCase& c) {
  const Trained many = train_in(world, c.layout, c.trained);
  if (world.rank() > 0) return "";
  const Trained one = train_alone(c.trained);
  const Difference d = difference(many, one);
  std::string wrong;
  const auto compare = [&](const std::string& what, double difference, double limit) {
    if (!(difference <= limit)) wrong += fmt::format("; {} differs by {:.2g}", what, difference);
  };
  if (c.trained.options.precision == layers::Precision::kFp64) {
    compare("first step", d.first_step, 1e-12);
    compare("gradient", d.gradient, 1e-12);
    compare("gradient of " + d.worst_parameter, d.worst_gradient, 1e-10);
    compare("balance or indexer loss", d.auxiliary, 1e-12);
    compare("router bias", d.bias, 1e-12);
    compare("weights", d.weight, 1e-9);
    compare("curve of losses", d.loss_curve, 1e-11);
    compare("curve of losses, norms and updates", d.curve, 1e-11);
  } else {
    // The 2-norm of small gradients that nearly cancel: see tests/train/invariance_test.cc. AdamW makes steps of full
    // length of the rounding of gradients near zero, which the norms of updates show and losses do not.
    compare("loss of the first step", d.first_loss, 1e-6);
    compare("norm of the first step", d.first_step, 2e-6);
    compare("gradient", d.gradient, 1e-6);
    compare("gradient of " + d.worst_parameter, d.worst_gradient, 1e-4);
    compare("balance or indexer loss", d.auxiliary, 1e-6);
    compare("curve of losses", d.loss_curve, 1e-5);
    compare("curve of norms and updates", d.curve, 5e-5);
  }
  if (!d.same_loads) wrong += "; other loads of experts";
  // docs/parallel.md: one tree for dp that is a power of two, of micro-batches that one rank has whole.
  const bool is_tree = (c.layout.dp & (c.layout.dp - 1)) == 0 && c.layout.cp * c.layout.tp == 1;
  const bool has_bits = c.trained.exact && is_tree;
  if (has_bits && !d.first_bit.empty()) wrong += "; other bits in " + d.first_bit;
  if (many.planned_bytes != many.allocated_bytes) wrong += "; memory is not the plan's";
  return wrong.empty() ? "" : c.description + wrong;
}

}  // namespace temper::train::testing
