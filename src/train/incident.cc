#include "train/incident.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "parallel/texts.h"

namespace temper::train {
namespace {

bool equal_bits(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

// The loss, and the norms where they were measured: after a loss that is not finite there are none.
bool equal_results(const StepResult& a, const StepResult& b) {
  bool equal = equal_bits(a.loss, b.loss) && equal_bits(a.mtp_loss, b.mtp_loss) &&
               equal_bits(a.norms.global, b.norms.global) && a.norms.first_nonfinite == b.norms.first_nonfinite;
  for (size_t i = 0; i < a.norms.group.size(); ++i) equal = equal && equal_bits(a.norms.group[i], b.norms.group[i]);
  return equal;
}

struct Checked {
  std::optional<BadValue> first_bad;
  std::vector<OpStatistic> statistics;
};

// Computes a step on the watched table.
Checked checking_pass(const Suspect& suspect, const data::LoaderStep& data) {
  const StepParts& parts = suspect.parts;
  const int64_t num_layers = parts.model.config().num_hidden_layers;
  const TensorNames names(suspect.book, num_layers);
  const layers::Ctx* watched_ctx = nullptr;
  const Step* step = nullptr;
  ValueCheck check(parts.ctx, names, data, num_layers, [&] {
    return CallPlace{step->position(), step->micro_batch(), watched_ctx->layer};
  });
  const backend::Backend inner{"training", parts.ctx.device, parts.ctx.ops};
  backend::WatchedBackend watched(inner, parts.ctx.stream, check);
  layers::Ctx ctx{watched.backend().ops, watched.backend().device, watched.stream(), parts.ctx.act, parts.ctx.acc, -1,
                  parts.ctx.groups,      parts.ctx.beside};
  Step watched_step(
      {ctx, parts.model, parts.objective, parts.norm_meter, parts.adamw, parts.max_grad_norm, parts.auxiliary});
  watched_ctx = &ctx, step = &watched_step;
  watched_step.compute(data.micro_batches, suspect.learning_rate);
  return {check.first_bad(), check.statistics()};
}

// The same output in another pass: the kind of instruction, layer, op, operand, and its number among those of its
// micro-batch. Outputs of several micro-batches are one.
using OutputKey = std::tuple<std::string, int64_t, backend::OpId, std::string, int64_t>;

class OutputCounter {
 public:
  OutputKey key_of(const OpStatistic& s) {
    const std::string kind = s.place.instruction.substr(0, s.place.instruction.find(' '));
    const int64_t number = seen_[{s.place.instruction, s.place.layer, s.op, s.operand, 0}]++;
    return {kind, s.place.layer, s.op, s.operand, number};
  }

 private:
  std::map<OutputKey, int64_t> seen_;
};

constexpr int64_t kFewElements = 64;

struct Size {
  double largest = 0, rms = 0;
};

std::optional<BadValue> first_out_of_proportion(const std::vector<OpStatistic>& now,
                                                const std::vector<OpStatistic>& baseline) {
  std::map<OutputKey, Size> usual;
  OutputCounter baseline_counter, counter;
  for (const OpStatistic& s : baseline) {
    Size& size = usual[baseline_counter.key_of(s)];
    size = {std::max(size.largest, s.largest), std::max(size.rms, s.rms)};
  }
  for (const OpStatistic& s : now) {
    const auto at = usual.find(counter.key_of(s));
    if (at == usual.end() || at->second.largest == 0) continue;
    // Squares vary by the square; sums of few elements, such as gradients of scales, may cancel to anything.
    if (s.op == backend::OpId::sum_squares || s.num_elements < kFewElements) continue;
    const double times = std::max(s.largest / at->second.largest, s.rms / at->second.rms);
    if (times <= kOutOfProportion) continue;
    BadValue bad;
    bad.finding = fmt::format(
        "is out of proportion: the largest of this output was {:.3g} in the step before, and its "
        "root mean square {:.3g} against {:.3g}",
        at->second.largest, s.rms, at->second.rms);
    bad.tensor = s.tensor, bad.index = s.index, bad.value = s.value, bad.place = s.token;
    bad.instruction = s.place.instruction, bad.layer = s.place.layer;
    bad.op = backend::kOpNames[static_cast<int>(s.op)], bad.operand = s.operand;
    bad.num_outputs_before = &s - now.data();
    return bad;
  }
  return std::nullopt;
}

}  // namespace

namespace {

// What other ranks have sent was bad there before; a forward pass comes before a backward one; and ranks with the same
// layers run the same ops.
std::array<int64_t, 3> order_of(const BadValue& bad, const model::Model& model) {
  const auto& parameters = model.parameters();
  const bool is_of_parameter = std::any_of(parameters.begin(), parameters.end(), [&](const layers::Parameter* p) {
    return bad.tensor == p->name || bad.tensor == p->name + ":whole";
  });
  return {bad.was_read && !is_of_parameter, !bad.instruction.starts_with("forward"), bad.num_outputs_before};
}

// Of what each rank has found the first, on all of them. world null: this rank alone.
std::optional<BadValue> first_of(std::optional<BadValue> mine, const model::Model& model, comm::Comm* world) {
  if (!world) return mine;
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  using Order = std::array<int64_t, 3>;
  std::vector<Order> order_R(world->size(), Order{kNone, kNone, kNone});
  if (mine) order_R[world->rank()] = order_of(*mine, model);
  const View all(order_R.data(), DType::kI64, {3 * world->size()});
  world->all_gather(nullptr, all, all.rows(3 * world->rank(), 3 * (world->rank() + 1)), {"first bad values"});
  const auto first = std::min_element(order_R.begin(), order_R.end());
  if ((*first)[0] == kNone) return std::nullopt;
  const int64_t rank = first - order_R.begin();
  BadValue bad;
  if (rank == world->rank()) {
    bad = *mine;
    const bool is_of_data = bad.op.empty() && bad.place;
    if (!is_of_data) bad.rank = rank;
  }
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;  // paths of samples may be any bytes
  const std::string text = parallel::tell_all(world, to_json(bad).dump(-1, ' ', false, kReplace), rank);
  return bad_value_from(nlohmann::ordered_json::parse(text));
}

}  // namespace

Incident investigate(Suspect suspect, int64_t step, const StepResult& result, const Judgement& judgement) {
  Incident incident;
  incident.step = step, incident.judgement = judgement;
  incident.loss = result.loss, incident.grad_norm = result.norms.global;
  incident.first_nonfinite = result.norms.first_nonfinite;

  Step repetition(suspect.parts);
  const StepResult& again = repetition.compute(suspect.data.micro_batches, suspect.learning_rate);
  incident.loss_again = again.loss, incident.norm_again = again.norms.global;
  incident.is_transient = !equal_results(result, again);

  const StepParts& parts = suspect.parts;
  comm::Comm* world = parts.ctx.groups.world;
  incident.bad =
      first_of(check_state(parts.ctx, parts.model, suspect.data, {parts.adamw.options(), parts.max_grad_norm}),
               parts.model, world);
  Checked checked = checking_pass(suspect, suspect.data);
  if (!incident.bad) incident.bad = first_of(checked.first_bad, parts.model, world);
  if (!incident.bad && !incident.is_transient && suspect.baseline) {
    const Checked baseline = checking_pass(suspect, *suspect.baseline);
    incident.bad = first_of(first_out_of_proportion(checked.statistics, baseline.statistics), parts.model, world);
  }
  incident.statistics = std::move(checked.statistics);
  incident.dp_rank_M = repetition.dealt_to();
  return incident;
}

std::string describe(const Incident& incident) {
  const Judgement& judgement = incident.judgement;
  std::string text = fmt::format("step {}: ", incident.step);
  if (judgement.anomaly != Anomaly::kNonFinite) {
    text += fmt::format("a {}: {:.6g}, where {:.6g} is usual and {:.6g} the limit", anomaly_name(judgement.anomaly),
                        judgement.value, judgement.usual, judgement.limit);
  } else if (!incident.first_nonfinite.empty()) {
    text += fmt::format("the gradient of {} is not finite", incident.first_nonfinite);
  } else {
    text += fmt::format("the loss is {}", incident.loss);
  }
  text += fmt::format(" (loss {:.6g}, gradient norm {:.6g}). ", incident.loss, incident.grad_norm);
  text += incident.is_transient
              ? fmt::format(
                    "Computed again on the same data and weights it gave another result (loss {:.6g}, gradient "
                    "norm {:.6g}): a transient fault, of the machine more likely than of the numbers. ",
                    incident.loss_again, incident.norm_again)
              : "Computed again it gave the same result bit for bit: it is reproducible. ";
  if (incident.bad) {
    const std::string rank = incident.bad->rank < 0 ? "" : fmt::format(", on rank {}", incident.bad->rank);
    return text + "First bad value" + rank + ": " + describe(*incident.bad) + ".";
  }
  return text + (incident.is_transient ? "The fault did not show again, so no value can be named."
                                       : "No single value stands out: see statistics.jsonl.");
}

nlohmann::ordered_json to_json(const Incident& incident) {
  const Judgement& judgement = incident.judgement;
  nlohmann::ordered_json json = {{"step", incident.step},
                                 {"anomaly", anomaly_name(judgement.anomaly)},
                                 {"first_nonfinite_gradient", incident.first_nonfinite}};
  json["loss"] = number_json(incident.loss);
  json["grad_norm"] = number_json(incident.grad_norm);
  json["value"] = number_json(judgement.value);
  json["limit"] = number_json(judgement.limit);
  json["usual"] = number_json(judgement.usual);
  json["verdict"] = incident.is_transient ? "transient" : "reproducible";
  json["loss_again"] = number_json(incident.loss_again);
  json["grad_norm_again"] = number_json(incident.norm_again);
  json["first_bad"] = incident.bad ? to_json(*incident.bad) : nlohmann::ordered_json(nullptr);
  json["text"] = describe(incident);
  return json;
}

}  // namespace temper::train
