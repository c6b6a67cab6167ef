#include "train/layouts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "comm/world.h"
#include "layers/dispatch_rounds.h"
#include "train/evaluate.h"
#include "train/expert_placement.h"

namespace temper::train::testing {
namespace {

constexpr int64_t kSeed = 3;
constexpr double kLearningRate = 1e-3;

// The last K experts, which one rank has, are chosen for every token of the layers that route by score.
void choose_the_last_experts(layers::Ctx& ctx, const model::Model& model) {
  const int64_t E = model.config().n_routed_experts, K = model.config().num_experts_per_tok;
  for (const layers::Parameter* p : model.parameters())
    if (p->name.ends_with(".e_score_correction_bias")) ctx.ops.fill(ctx.stream, p->value.rows(E - K, E), 100);
}

}  // namespace

model::Config layout_config(int64_t num_layers) {
  model::Config config = tiny_config();
  config.n_routed_experts = 8, config.o_groups = 4;
  for (int64_t l = config.num_hidden_layers; l < num_layers; ++l) {
    config.layer_types.push_back(config.layer_types[l - config.num_hidden_layers]);
    config.is_hash_moe.push_back(config.is_hash_moe[l - config.num_hidden_layers]);
  }
  config.num_hidden_layers = num_layers;
  return config;
}

TrainedCase layout_case(size_t micro_batches_per_step, int num_steps) {
  TrainedCase c;
  uint64_t seed = 20;
  for (int step = 0; step < num_steps; ++step) {
    auto& batches = c.steps.emplace_back();
    for (size_t m = 0; m < micro_batches_per_step; ++m, ++seed) {
      const int64_t length = 9 + static_cast<int64_t>(seed * 7 % 40);
      batches.push_back(pack_row(random_documents({length, 5, 21}, tiny_config().vocab_size, seed)));
    }
    std::fill(batches[1].targets.begin(), batches[1].targets.end(), -1);
    std::fill(batches[1].weights.begin(), batches[1].weights.end(), 0.0f);
  }
  c.options.precision = layers::Precision::kFp32;
  c.options.logit_chunk = 24;
  c.options.mtp = true;
  c.options.indexer = model::IndexerUse::kTrain;
  c.auxiliary = {.mtp = 0.3, .balance = 0.1, .indexer = 0.5, .bias_update_speed = 1e-3};
  return c;
}

namespace {

// What a rank counts of a tensor of the whole model, in its place; the rest is 0.
void put(std::map<std::string, std::vector<double>>& whole, layers::Ctx& ctx, const layers::Parameter& p,
         const View& owned) {
  std::vector<double>& values = whole.at(p.name);
  if (p.num_owned() == 0) return;
  const std::vector<double> mine = to_host(ctx, owned);
  for (int64_t i = 0; i < p.num_owned(); ++i) values[p.whole_index(p.owned_begin() + i)] = mine[i];
}

void add_ranks(comm::Comm* world, std::map<std::string, std::vector<double>>& whole) {
  if (!world) return;
  for (auto& [name, values] : whole) {
    const View view(values.data(), DType::kF64, {static_cast<int64_t>(values.size())});
    world->all_reduce(nullptr, view, comm::Reduce::kSum, {"a test's collection"});
  }
}

bool is_router_bias(const layers::Parameter& p) { return p.name.ends_with("e_score_correction_bias"); }

// Router biases are no trained parameters: every rank of a stage has them, the first one counts.
void collect_biases(Session& session, const parallel::Ranks* ranks, Trained& out) {
  model::ModelOptions whole = session.model().options();
  whole.part = {};
  const model::Model whole_model(session.model().config(), whole);
  for (const layers::Parameter* p : whole_model.parameters())
    if (is_router_bias(*p)) out.biases[p->name].resize(p->shape.size());
  for (const layers::Parameter* p : session.model().parameters())
    if (is_router_bias(*p) && session.whole().is_counted(*p)) put(out.biases, session.ctx(), *p, p->value);
  add_ranks(ranks ? ranks->world : nullptr, out.biases);
}

Trained train_rank(const parallel::Ranks* ranks, const TrainedCase& c) {
  model::ModelOptions options = c.options;
  size_t most_batches = 0;
  for (const auto& step : c.steps) {
    most_batches = std::max(most_batches, step.size());
    for (const auto& batch : step)
      options.max_tokens = std::max(options.max_tokens, static_cast<int64_t>(batch.tokens.size()));
  }
  if (c.exact) options.part.exact_micro_batches = static_cast<int64_t>(most_batches);
  if (ranks) ranks->place(c.config, static_cast<int64_t>(most_batches), options);
  if (c.has_expert_rounds && options.part.ep_size > 1) {
    const model::Config& config = c.config;
    options.part.expert_rows =
        layers::most_expert_rows({}, options.max_tokens, config.n_routed_experts, config.num_experts_per_tok);
  }
  Session session(backend_for(options.precision), c.config, options, StateMemory::kNone, ranks);
  layers::Ctx& ctx = session.ctx();
  session.model().initialize(ctx, kSeed);
  if (c.has_expert_rounds) choose_the_last_experts(ctx, session.model());
  const auto objective = objective::make_objective("sft", c.objective);
  optim::Adamw adamw(c.adamw);
  Step step({ctx, session.model(), *objective, session.norm_meter(), adamw, c.max_grad_norm, c.auxiliary,
             &session.update_meter()});

  std::optional<ExpertPlacement> placement;
  if (c.rebalances && ranks && ranks->ep) placement.emplace(session, *ranks);
  Trained out;
  for (const auto& row : session.whole().rows) {
    out.gradients[row.name].resize(row.num_elements);
    out.last_gradients[row.name].resize(row.num_elements);
    out.weights[row.name].resize(row.num_elements);
  }
  const std::vector<optim::LocalRow> mine = optim::local_rows(session.whole(), session.model().parameters());
  for (size_t i = 0; i < c.steps.size(); ++i) {
    StepResult result = step.compute(c.steps[i], kLearningRate);
    for (const auto& local : mine)
      for (auto* gradients :
           {i == 0 ? &out.gradients : nullptr, i + 1 == c.steps.size() ? &out.last_gradients : nullptr})
        if (gradients && local.is_counted) put(*gradients, ctx, *local.parameter, local.parameter->owned_grad());
    if (i == 0)
      for (const model::MoeStatistics& layer : result.moe_L) out.loads.push_back(layer.load_E);
    const bool is_skipped = static_cast<int64_t>(i) == c.skipped_step;
    if (!is_skipped) result = step.update();
    out.losses.push_back(result.loss), out.mtp_losses.push_back(result.mtp_loss);
    out.norms.push_back(result.norms.global);
    out.updates.push_back(is_skipped ? 0 : result.update->global.update);
    out.weight_norms.push_back(is_skipped ? 0 : result.update->global.weight);
    out.balance_losses.push_back(result.balance_loss), out.indexer_losses.push_back(result.indexer_loss);
    if (c.evaluates) out.heldout.push_back(evaluate(ctx, session.model(), c.steps[0]).loss);
    if (!placement) continue;
    placement->count(result.moe_L);
    out.num_dealt += placement->deal().num_layers;
  }
  if (placement) placement->put_in_order();
  for (const auto& local : mine)
    if (local.is_counted) put(out.weights, ctx, *local.parameter, local.parameter->master);
  add_ranks(ranks ? ranks->world : nullptr, out.gradients);
  add_ranks(ranks ? ranks->world : nullptr, out.last_gradients);
  add_ranks(ranks ? ranks->world : nullptr, out.weights);
  collect_biases(session, ranks, out);
  out.planned_bytes = session.book().total_bytes(), out.allocated_bytes = session.allocated_bytes();
  return out;
}

double relative(double a, double b) { return a == b ? 0 : std::abs(a - b) / std::abs(b); }

double relative(const std::map<std::string, std::vector<double>>& a,
                const std::map<std::string, std::vector<double>>& b, const char* what, std::string& first_bit) {
  double square = 0, difference = 0;
  for (const auto& [name, expected] : b) {
    const auto& actual = a.at(name);
    CHECK(actual.size() == expected.size(), name);
    for (size_t i = 0; i < expected.size(); ++i) {
      square += expected[i] * expected[i];
      difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
      if (first_bit.empty() && actual[i] != expected[i]) first_bit = fmt::format("{} of {} [{}]", what, name, i);
    }
  }
  return difference == 0 ? 0 : std::sqrt(difference / square);
}

double norm(const std::vector<double>& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

// Of the parameter that differs most. A gradient that vanishes in exact arithmetic has no figures of its own: the floor
// is 1/1000 of the largest.
void compare_each(const Trained& a, const Trained& b, Difference& d) {
  double largest = 0;
  for (const auto& [name, expected] : b.gradients) largest = std::max(largest, norm(expected));
  for (const auto& [name, expected] : b.gradients) {
    std::vector<double> apart = a.gradients.at(name);
    for (size_t i = 0; i < apart.size(); ++i) apart[i] -= expected[i];
    const double moved = norm(apart) / std::max(norm(expected), largest / 1000);
    if (moved > d.worst_gradient) d.worst_gradient = moved, d.worst_parameter = name;
  }
  for (const auto& [name, expected] : b.biases)
    for (size_t i = 0; i < expected.size(); ++i)
      d.bias = std::max(d.bias, std::abs(a.biases.at(name)[i] - expected[i]));
  d.auxiliary =
      std::max(relative(a.balance_losses[0], b.balance_losses[0]), relative(a.indexer_losses[0], b.indexer_losses[0]));
  d.same_loads = a.loads == b.loads;
}

}  // namespace

Trained train_in(comm::Comm& world, const parallel::Layout& layout, const TrainedCase& c) {
  const parallel::Ranks ranks = parallel::join_mesh(world, parallel::resolve(layout, world.size(), c.config));
  return train_rank(&ranks, c);
}

Trained train_alone(const TrainedCase& c) { return train_rank(nullptr, c); }

Trained train_on(const parallel::Layout& layout, const TrainedCase& c) {
  Trained trained;
  comm::run_ranks(layout.dp * layout.pp * layout.cp * layout.tp, [&](comm::Comm& world) {
    Trained of_rank = train_in(world, layout, c);
    CHECK(of_rank.planned_bytes == of_rank.allocated_bytes, of_rank.planned_bytes, of_rank.allocated_bytes);
    if (world.rank() == 0) trained = std::move(of_rank);
  });
  return trained;
}

Difference difference(const Trained& a, const Trained& b) {
  Difference d;
  d.gradient = relative(a.gradients, b.gradients, "gradient", d.first_bit);
  for (size_t i = 0; i < b.losses.size(); ++i) {
    const double loss = std::max(relative(a.losses[i], b.losses[i]), relative(a.mtp_losses[i], b.mtp_losses[i]));
    const double moved = std::max(loss, relative(a.norms[i], b.norms[i]));
    if (i == 0) d.first_loss = loss, d.first_step = moved;
    d.loss_curve = std::max(d.loss_curve, loss);
    d.curve = std::max({d.curve, moved, relative(a.updates[i], b.updates[i])});
    if (!d.first_bit.empty()) continue;
    if (a.losses[i] != b.losses[i] || a.mtp_losses[i] != b.mtp_losses[i])
      d.first_bit = fmt::format("loss of step {}", i);
    else if (a.norms[i] != b.norms[i] || a.updates[i] != b.updates[i] || a.weight_norms[i] != b.weight_norms[i])
      d.first_bit = fmt::format("norm of step {}", i);
  }
  CHECK(a.heldout.size() == b.heldout.size());
  for (size_t i = 0; i < b.heldout.size(); ++i) {
    d.loss_curve = std::max(d.loss_curve, relative(a.heldout[i], b.heldout[i]));
    if (d.first_bit.empty() && a.heldout[i] != b.heldout[i]) d.first_bit = fmt::format("evaluation {}", i);
  }
  relative(a.last_gradients, b.last_gradients, "last gradient", d.first_bit);
  d.weight = relative(a.weights, b.weights, "weight", d.first_bit);
  compare_each(a, b, d);
  return d;
}

}  // namespace temper::train::testing
