#include "train/layouts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "comm/world.h"

namespace temper::train::testing {
namespace {

constexpr int64_t kSeed = 3;
constexpr double kLearningRate = 1e-3;

// Adds what a rank owns of a tensor to the whole.
void put(std::map<std::string, std::vector<double>>& whole, layers::Ctx& ctx, const layers::Parameter& p,
         const View& owned) {
  std::vector<double>& values = whole[p.name];
  values.resize(p.whole_shape().size());
  if (p.num_owned() == 0) return;
  const std::vector<double> mine = to_host(ctx, owned);
  for (int64_t i = 0; i < p.num_owned(); ++i) values[p.whole_index(p.owned_begin() + i)] = mine[i];
}

void train_rank(const parallel::Ranks* ranks, const TrainedCase& c, Trained& out, std::mutex& mutex) {
  model::ModelOptions options = c.options;
  size_t most_batches = 0;
  for (const auto& step : c.steps) {
    most_batches = std::max(most_batches, step.size());
    for (const auto& batch : step)
      options.max_tokens = std::max(options.max_tokens, static_cast<int64_t>(batch.tokens.size()));
  }
  if (c.exact) options.part.exact_micro_batches = static_cast<int64_t>(most_batches);
  Session session(backend_for(options.precision), tiny_config(), options, StateMemory::kNone, ranks);
  layers::Ctx& ctx = session.ctx();
  session.model().initialize(ctx, kSeed);
  const auto objective = objective::make_objective("sft", {});
  optim::Adamw adamw({});
  Step step({ctx, session.model(), *objective, session.norm_meter(), adamw, 1.0, c.auxiliary, &session.update_meter()});
  for (size_t i = 0; i < c.steps.size(); ++i) {
    const StepResult result = step.compute(c.steps[i], kLearningRate);
    {
      const std::lock_guard lock(mutex);
      if (i == 0)
        for (const layers::Parameter* p : session.model().parameters())
          if (p->trainable) put(out.gradients, ctx, *p, p->owned_grad());
      if (!ranks || ranks->is_first()) {
        out.losses.push_back(result.loss), out.mtp_losses.push_back(result.mtp_loss);
        out.norms.push_back(result.norms.global);
      }
    }
    step.update();
  }
  const std::lock_guard lock(mutex);
  for (const layers::Parameter* p : session.model().parameters())
    if (p->trainable) put(out.weights, ctx, *p, p->master);
  if (ranks && !ranks->is_first()) return;
  out.planned_bytes = session.book().total_bytes(), out.allocated_bytes = session.allocated_bytes();
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
  return std::sqrt(difference / square);
}

}  // namespace

Trained train_on(const parallel::Layout& layout, const TrainedCase& c) {
  Trained trained;
  std::mutex mutex;
  const int64_t num_ranks = layout.dp * layout.pp * layout.cp * layout.tp;
  if (num_ranks == 1) {
    train_rank(nullptr, c, trained, mutex);
    return trained;
  }
  comm::run_ranks(num_ranks, [&](comm::Comm& world) {
    const parallel::Ranks ranks = parallel::join_mesh(world, parallel::resolve(layout, num_ranks, tiny_config()));
    train_rank(&ranks, c, trained, mutex);
  });
  return trained;
}

Difference difference(const Trained& a, const Trained& b) {
  Difference d;
  for (size_t i = 0; i < b.losses.size(); ++i) {
    d.loss = std::max({d.loss, relative(a.losses[i], b.losses[i]), relative(a.mtp_losses[i], b.mtp_losses[i]),
                       relative(a.norms[i], b.norms[i])});
    if (!d.first_bit.empty()) continue;
    if (a.losses[i] != b.losses[i] || a.mtp_losses[i] != b.mtp_losses[i])
      d.first_bit = fmt::format("loss of step {}", i);
    if (i == 0) d.gradient = relative(a.gradients, b.gradients, "gradient", d.first_bit);
    if (d.first_bit.empty() && a.norms[i] != b.norms[i]) d.first_bit = fmt::format("norm of step {}", i);
  }
  d.weight = relative(a.weights, b.weights, "weight", d.first_bit);
  return d;
}

}  // namespace temper::train::testing
