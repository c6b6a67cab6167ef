#include "verify/against_dir.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "verify/difference.h"
#include "verify/storage.h"
#include "verify/streamed_mtp.h"
#include "verify/weight_difference.h"

namespace temper::verify {
namespace {

struct LayerResult {
  std::string name;
  Difference own, same;           // on its own streams; on the other directory's
  int64_t num_other_choices = 0;  // tokens that chose other experts on equal streams
  std::vector<WeightDifference> weights;
};

// Tokens whose rows of chosen experts differ.
int64_t count_other_rows(const std::vector<double>& a, const std::vector<double>& b, int64_t num_tokens) {
  const size_t width = a.size() / static_cast<size_t>(num_tokens);
  int64_t count = 0;
  for (size_t t = 0; t < static_cast<size_t>(num_tokens); ++t)
    count += !std::equal(a.begin() + t * width, a.begin() + (t + 1) * width, b.begin() + t * width);
  return count;
}

// Runs layer l of both models, ours on both models' streams, and moves both on.
LayerResult run_layer(StreamedModel& ours, StreamedModel& theirs, const View& same_TMD, int64_t l) {
  LayerResult result;
  std::vector<double> their_choice;
  {
    LoadedLayer layer(theirs, l);
    layer.forward(theirs.next_streams(), theirs.streams());
    their_choice = to_doubles(layer.block().choices(theirs.num_tokens()).expert_TK);
  }
  std::vector<std::string> parameters;
  {
    LoadedLayer layer(ours, l);
    layer.forward(same_TMD, theirs.streams());
    result.num_other_choices = count_other_rows(to_doubles(layer.block().choices(ours.num_tokens()).expert_TK),
                                                their_choice, ours.num_tokens());
    layer.forward(ours.next_streams(), ours.streams());
    for (const layers::Parameter* parameter : layer.parameters()) parameters.push_back(parameter->name);
  }
  result.weights = compare_weights(ours.weights(), theirs.weights(), parameters);
  result.same = compare_rows(same_TMD, theirs.next_streams());
  result.own = compare_rows(ours.next_streams(), theirs.next_streams());
  ours.swap(), theirs.swap();
  return result;
}

// The same for the MTP blocks, whose results are what the head reads.
LayerResult run_mtp(StreamedModel& ours, StreamedModel& theirs) {
  LayerResult result;
  Storage storage;
  View want;
  std::vector<double> their_choice;
  {
    LoadedMtp block(theirs);
    if (block.num_rows() == 0) return result;
    want = storage.copy(block.forward(theirs.streams()));
    their_choice = to_doubles(block.mtp().block().choices(block.num_rows()).expert_TK);
  }
  LoadedMtp block(ours);
  result.same = compare_rows(block.forward(theirs.streams()), want);
  result.num_other_choices = count_other_rows(to_doubles(block.mtp().block().choices(block.num_rows()).expert_TK),
                                              their_choice, block.num_rows());
  result.own = compare_rows(block.forward(ours.streams()), want);
  std::vector<std::string> parameters;
  for (const layers::Parameter* parameter : block.parameters()) parameters.push_back(parameter->name);
  result.weights = compare_weights(ours.weights(), theirs.weights(), parameters);
  return result;
}

std::string header() {
  return fmt::format("{:<9} {:>9} {:>12} {:>10} {:>6} {:>9} {:>8}  {}\n", "layer", "own error", "cosine", "same input",
                     "at", "otherwise", "weights", "the tensor that differs most");
}

std::string line(const LayerResult& r) {
  const std::string tensor =
      r.weights.empty() ? "-" : fmt::format("{} ({:.2e})", r.weights[0].tensor, r.weights[0].error);
  return fmt::format("{:<9} {:>9.2e} {:>12.9f} {:>10.2e} {:>6} {:>9} {:>8}  {}\n", r.name, r.own.error, r.own.cosine,
                     r.same.worst_error, r.same.worst_row, r.num_other_choices, r.weights.size(), tensor);
}

nlohmann::json to_json(const LayerResult& r) {
  auto tensors = nlohmann::json::array();
  for (const WeightDifference& weight : r.weights) {
    tensors.push_back({{"tensor", weight.tensor}, {"error", weight.error}, {"largest", weight.largest}});
    if (!weight.cause.empty()) tensors.back()["cause"] = weight.cause;
  }
  return {{"name", r.name},
          {"own_error", r.own.error},
          {"own_cosine", r.own.cosine},
          {"same_input_error", r.same.error},
          {"same_input_cosine", r.same.cosine},
          {"same_input_worst_token", r.same.worst_row},
          {"same_input_worst_token_error", r.same.worst_error},
          {"tokens_with_other_experts", r.num_other_choices},
          {"differing_tensors", tensors}};
}

// The cause that most of the differing tensors share is told with the worst tensor that has one.
std::string cause_of(const std::vector<WeightDifference>& weights) {
  if (weights.empty()) return "its weights are equal: the two config.json differ";
  const auto with_cause = std::find_if(weights.begin(), weights.end(), [](auto& w) { return !w.cause.empty(); });
  const WeightDifference& worst = with_cause == weights.end() ? weights[0] : *with_cause;
  return fmt::format("{} differs by {:.2g}{}{}", worst.tensor, worst.error, worst.cause.empty() ? "" : ": ",
                     worst.cause);
}

void judge(const LayerResult& r, int64_t layer, double max_error, Findings& findings) {
  if (r.same.num_non_finite > 0)
    findings.fail(layer, "streams", fmt::format("{} elements are NaN or infinite", r.same.num_non_finite),
                  cause_of(r.weights));
  else if (!(r.same.worst_error <= max_error))
    findings.fail(
        layer, "streams",
        fmt::format("token {} differs by {:.2g} of its size on equal streams, allowed {:.2g}{}", r.same.worst_row,
                    r.same.worst_error, max_error,
                    r.num_other_choices > 0 ? fmt::format("; {} tokens chose other experts", r.num_other_choices) : ""),
        cause_of(r.weights));
}

}  // namespace

void refuse_other_shapes(const Weights& ours, const Weights& theirs) {
  const auto &a = ours.parameters(), &b = theirs.parameters();
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    if (i < a.size() && i < b.size() && a[i]->name == b[i]->name && a[i]->shape == b[i]->shape) continue;
    const auto describe = [&](const layers::ParameterList& list) {
      return i < list.size() ? fmt::format("{} {}", list[i]->name, list[i]->shape.to_string()) : "nothing more";
    };
    fail(ErrorCode::kInvalidArgument,
         "{} and {} are models of different shapes: the first has {} where the second has {}", ours.dir().string(),
         theirs.dir().string(), describe(a), describe(b));
  }
}

int64_t against_extra_bytes(const Weights& theirs, layers::Precision precision, int64_t num_tokens) {
  const MemoryPlan plan = StreamedModel::plan(theirs, precision, num_tokens);
  const model::Config& c = theirs.config();
  const int64_t streams = num_tokens * c.hc_mult * c.hidden_size;
  // The other model, the streams of the third run, and the logits of both as they are compared.
  return plan.shared_bytes + plan.head_bytes + streams * dtype_bytes(layers::act_dtype(precision));
}

nlohmann::json check_against_dir(const Weights& ours, const Weights& theirs, const layers::MicroBatch& tokens,
                                 const backend::Backend& fast, const AgainstOptions& options, Findings& findings,
                                 const Print& print) {
  const double start = now_seconds(), max_error = options.max_error > 0 ? options.max_error : kMaxAgainstError;
  const OwnedStream stream(fast.device);
  StreamedModel a(fast, stream.get(), ours, options.precision, tokens);
  StreamedModel b(fast, stream.get(), theirs, options.precision, tokens);
  Book book;
  View same_TMD;
  book.declare(&same_TMD, TensorKind::kSaved, "streams on equal input", a.dtypes().act, a.streams().shape);
  const backend::Arena arena(fast.device, book);

  print(header());
  a.embed(), b.embed();
  LayerResult embedding{"embedding",
                        compare_rows(a.streams(), b.streams()),
                        {},
                        0,
                        compare_weights(ours, theirs, {"model.embed_tokens.weight"})};
  embedding.same = embedding.own;
  print(line(embedding));
  judge(embedding, kNoLayer, max_error, findings);
  auto layers = nlohmann::json::array({to_json(embedding)});
  for (int64_t l = 0; l < ours.config().num_hidden_layers; ++l) {
    LayerResult result = run_layer(a, b, same_TMD, l);
    result.name = layer_name(l, ours.config().num_hidden_layers);
    print(line(result));
    judge(result, l, max_error, findings);
    layers.push_back(to_json(result));
  }

  if (ours.has_mtp()) {
    LayerResult result = run_mtp(a, b);
    result.name = layer_name(ours.config().num_hidden_layers, ours.config().num_hidden_layers);
    print(line(result));
    judge(result, ours.config().num_hidden_layers, max_error, findings);
    layers.push_back(to_json(result));
  }

  LogitComparison comparison(a.num_tokens());
  Head our_head(a, a.collapse()), their_head(b, b.collapse());
  for (int64_t chunk = 0; chunk < our_head.num_chunks(); ++chunk)
    comparison.add(0, our_head.logits(chunk), their_head.logits(chunk));
  const auto result = comparison.result(0, a.num_tokens());
  print("\n" + logits_header() + logits_line("all", result));
  const auto head_weights = compare_weights(ours, theirs, {"model.norm.weight", "lm_head.weight"});
  judge_logits("logits", result, options.logits, head_weights.empty() ? "" : cause_of(head_weights), findings);
  return {
      {"layers", layers}, {"logits", to_json(result)}, {"max_error", max_error}, {"seconds", now_seconds() - start}};
}

}  // namespace temper::verify
