#include "verify/self.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "verify/checked.h"
#include "verify/invariants.h"
#include "verify/streamed_mtp.h"

namespace temper::verify {
namespace {

using layers::ParameterList;

// A layer in float64 that reads the weights where the fast layer has them: the reference mixes dtypes.
class ReferenceLayer {
 public:
  ReferenceLayer(const model::Config& config, int64_t layer, const LoadedLayer& fast, int64_t num_tokens)
      : block_(fast.prefix(), model::block_dims(config, layer), {DType::kF64, DType::kF64}),
        ctx_{backend::cpu_reference().ops, backend::cpu_reference().device, nullptr, DType::kF64, DType::kF64} {
    declare_layer(book_, block_, false, num_tokens);
    book_.declare(&xo_TMD_, TensorKind::kSaved, "streams", DType::kF64,
                  {num_tokens, config.hc_mult, config.hidden_size});
    arena_ = std::make_unique<backend::Arena>(ctx_.device, book_);
    ParameterList mine;
    block_.collect(mine);
    CHECK(mine.size() == fast.parameters().size(), mine.size(), fast.parameters().size());
    for (size_t i = 0; i < mine.size(); ++i) mine[i]->value = fast.parameters()[i]->value;
  }

  // The streams behind the layer, with the choices of the fast run.
  View run(const View& x_TMD, const model::Block& fast, const layers::DeviceLayout& layout,
           const layers::RotaryTable& rotary) {
    const int64_t T = x_TMD.dim(0);
    const auto mine = block_.choices(T), theirs = fast.choices(T);
    ctx_.ops.copy(nullptr, mine.expert_TK, theirs.expert_TK);
    if (theirs.selected_TA.defined()) ctx_.ops.copy(nullptr, mine.selected_TA, theirs.selected_TA);
    block_.forward(ctx_, xo_TMD_, x_TMD, {{true, {}}, {true, {}}}, layout, rotary);
    return xo_TMD_;
  }

 private:
  model::Block block_;
  layers::Ctx ctx_;
  Book book_;
  View xo_TMD_;
  std::unique_ptr<backend::Arena> arena_;
};

struct LayerResult {
  std::string name;
  Difference streams;
  OpError worst_op;  // the worst of those that failed, or of all
  int64_t num_ties = 0;
  double seconds = 0;
};

const OpError* worst_of(const std::vector<OpError>& errors) {
  const auto rank = [](const OpError& e) {
    return e.error > e.allowed ? 1 + e.error : e.error / std::max(e.allowed, 1e-30);
  };
  const auto at = std::max_element(errors.begin(), errors.end(), [&](auto& a, auto& b) { return rank(a) < rank(b); });
  return at == errors.end() ? nullptr : &*at;
}

std::string op_name(const OpError& error) { return std::string(backend::kOpNames[static_cast<int>(error.op)]); }

void report_ops(const std::vector<OpError>& errors, int64_t layer, Findings& findings) {
  for (const OpError& error : errors) {
    if (!(error.error > error.allowed)) continue;
    const std::string where = error.weight.empty() ? "" : fmt::format(" with {}", error.weight);
    const std::string what =
        error.allowed == 0 ? fmt::format("{} of row {} is not the reference's choice", error.output, error.row)
                           : fmt::format("{} differs from float64 by {:.2g} of its size at row {}, allowed {:.2g}",
                                         error.output, error.error, error.row, error.allowed);
    findings.fail(layer, "op " + op_name(error) + where, what, error.cause);
  }
}

void report_streams(const Difference& streams, int64_t layer, double max_error, Findings& findings) {
  if (streams.num_non_finite > 0)
    findings.fail(layer, "streams", fmt::format("{} elements are NaN or infinite", streams.num_non_finite));
  else if (!(streams.worst_error <= max_error))
    findings.fail(layer, "streams",
                  fmt::format("token {} differs from float64 by {:.2g} of its size, allowed {:.2g}", streams.worst_row,
                              streams.worst_error, max_error));
}

std::string header() {
  return fmt::format("{:<9} {:>9} {:>12} {:>9} {:>7}  {:<26} {:>9} {:>9} {:>6} {:>6}\n", "layer", "error", "cosine",
                     "worst tok", "at", "worst op", "its error", "allowed", "ties", "s");
}

std::string line(const LayerResult& r) {
  return fmt::format("{:<9} {:>9.2e} {:>12.9f} {:>9.2e} {:>7}  {:<26} {:>9.2e} {:>9.2e} {:>6} {:>6.1f}\n", r.name,
                     r.streams.error, r.streams.cosine, r.streams.worst_error, r.streams.worst_row, op_name(r.worst_op),
                     r.worst_op.error, r.worst_op.allowed, r.num_ties, r.seconds);
}

nlohmann::json layer_json(const LayerResult& r, const std::vector<OpError>& errors, const Invariants& invariants) {
  auto ops = nlohmann::json::object();
  for (const OpError& e : errors)
    ops[op_name(e)] = {{"calls", e.num_calls}, {"error", e.error},   {"allowed", e.allowed},
                       {"output", e.output},   {"weight", e.weight}, {"row", e.row}};
  return {{"name", r.name},
          {"error", r.streams.error},
          {"cosine", r.streams.cosine},
          {"worst_token", r.streams.worst_row},
          {"worst_token_error", r.streams.worst_error},
          {"non_finite", r.streams.num_non_finite},
          {"ties", r.num_ties},
          {"seconds", r.seconds},
          {"comb_column_deviation", invariants.comb_column},
          {"comb_row_deviation", invariants.comb_row},
          {"router_weight_deviation", invariants.router_weight},
          {"ops", ops}};
}

// What the tokens leave unexercised.
std::string not_exercised(const model::Config& config, const layers::HostLayout& layout) {
  std::string out;
  for (const layers::EntryLayout& entries : layout.entries) {
    if (entries.max_count == 0)
      out +=
          fmt::format("not exercised: compressors of rate {}; no document has {} tokens\n", entries.rate, entries.rate);
    else if (entries.rate == config.csa_rate && entries.max_count <= config.index_topk)
      out += fmt::format(
          "not exercised: the indexer's choice; no token sees more than index_topk = {} entries, {} at most\n",
          config.index_topk, entries.max_count);
  }
  return out;
}

// The run of one model, part by part.
class SelfCheck {
 public:
  SelfCheck(const Weights& weights, const layers::MicroBatch& tokens, const SelfOptions& options, Findings& findings,
            const Print& print)
      : config_(weights.config()),
        options_(options),
        max_error_(options.max_error > 0 ? options.max_error : default_max_error(options.precision)),
        findings_(findings),
        print_(print),
        checked_(options.fast ? *options.fast : backend::cpu()),
        model_(checked_.backend(), checked_.stream(), weights, options.precision, tokens) {}

  void begin() {
    print_(not_exercised(config_, model_.layout().host()) + header());
    model_.embed();
    report_ops(checked_.errors(), kNoLayer, findings_);
  }

  void layer(int64_t l) {
    const double start = now_seconds();
    LoadedLayer fast(model_, l);
    expect(fast.parameters());
    fast.forward(model_.next_streams(), model_.streams());
    const std::vector<OpError> errors = checked_.errors();
    ReferenceLayer reference(config_, l, fast, model_.num_tokens());
    const View want = reference.run(model_.streams(), fast.block(), model_.layout(), model_.rotary(l));
    const Difference streams = compare_rows(model_.next_streams(), want);
    report(l, start, streams, errors,
           measure_invariants(fast.block(), fast.value(".sinks"), config_, l, model_.num_tokens()));
    backend::cpu_reference().ops.copy(nullptr, model_.streams(), want);
    expect({});
  }

  // Begins with the streams behind the last layer, which stay as they are.
  void mtp() {
    const double start = now_seconds();
    LoadedMtp fast(model_);
    if (fast.num_rows() == 0) return print_("not exercised: the MTP block; no document has two tokens\n");
    expect(fast.parameters());
    const View got = fast.forward(model_.streams());
    const std::vector<OpError> errors = checked_.errors();
    ReferenceMtp reference(model_, fast);
    View sink_N;
    for (const layers::Parameter* p : fast.parameters())
      if (p->name.ends_with(".sinks")) sink_N = p->value;
    const int64_t number = config_.num_hidden_layers;
    report(number, start, compare_rows(got, reference.run(model_.streams())), errors,
           measure_invariants(fast.mtp().block(), sink_N, config_, number, fast.num_rows()));
    expect({});
  }

  void head() {
    expect({});
    Head head(model_, model_.collapse());
    for (int64_t chunk = 0; chunk < head.num_chunks(); ++chunk) head.logits(chunk);
    report_ops(checked_.errors(), kNoLayer, findings_);
    const OpError worst = *worst_of(checked_.errors());
    print_(
        fmt::format("{:<9} {:>51} {:<26} {:>9.2e} {:>9.2e}\n", "head", "", op_name(worst), worst.error, worst.allowed));
  }

  nlohmann::json to_json() const {
    return {{"precision", options_.precision == layers::Precision::kBf16 ? "bf16" : "fp32"},
            {"tokens", model_.num_tokens()},
            {"max_error", max_error_},
            {"layers", layers_}};
  }

 private:
  // The next ops belong to a part with these parameters.
  void expect(const ParameterList& parameters) {
    checked_.set_parameters(parameters);
    checked_.reset();
  }

  void report(int64_t layer, double start, const Difference& streams, const std::vector<OpError>& errors,
              const Invariants& invariants) {
    LayerResult result;
    result.name = layer_name(layer, config_.num_hidden_layers);
    result.streams = streams;
    result.worst_op = *worst_of(errors);
    result.num_ties = checked_.num_ties();
    result.seconds = now_seconds() - start;
    report_ops(errors, layer, findings_);
    report_streams(streams, layer, max_error_, findings_);
    report_invariants(invariants, layer, findings_);
    print_(line(result));
    layers_.push_back(layer_json(result, errors, invariants));
  }

  const model::Config& config_;
  const SelfOptions& options_;
  double max_error_;
  Findings& findings_;
  const Print& print_;
  CheckedBackend checked_;
  StreamedModel model_;
  nlohmann::json layers_ = nlohmann::json::array();
};

}  // namespace

double default_max_error(layers::Precision precision) { return precision == layers::Precision::kBf16 ? 5e-2 : 1e-4; }

int64_t self_extra_bytes(const Weights& weights, int64_t num_tokens) {
  const model::Config& config = weights.config();
  int64_t reference_bytes = 0, largest_matrix = 0, largest_activation = head_rows(config, num_tokens) * num_tokens;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    model::Block block("", model::block_dims(config, layer), {DType::kF64, DType::kF64});
    Book book;
    declare_layer(book, block, false, num_tokens);
    reference_bytes = std::max(reference_bytes, book.total_bytes());
    for (const Book::Entry& entry : book.entries())
      largest_activation = std::max(largest_activation, entry.view->size());
    ParameterList list;
    block.collect(list);
    for (const layers::Parameter* p : list)  // experts are read one at a time
      largest_matrix = std::max(largest_matrix, p->shape.rank() == 3 ? p->shape.size() / p->shape[0] : p->shape.size());
  }
  if (weights.has_mtp()) {
    model::Mtp mtp(config, {DType::kF64, DType::kF64});
    Book book;
    declare_mtp(book, mtp, false, num_tokens);
    reference_bytes = std::max(reference_bytes, book.total_bytes());
  }
  const int64_t streams = num_tokens * config.hc_mult * config.hidden_size;
  // An op's operands and results as the reference holds them, and as they are compared.
  const int64_t op = largest_matrix + 6 * std::max(largest_activation, streams);
  return reference_bytes + (streams + op) * dtype_bytes(DType::kF64);
}

nlohmann::json check_self(const Weights& weights, const layers::MicroBatch& tokens, const SelfOptions& options,
                          Findings& findings, const Print& print) {
  SelfCheck check(weights, tokens, options, findings, print);
  check.begin();
  for (int64_t l = 0; l < weights.config().num_hidden_layers; ++l) check.layer(l);
  if (weights.has_mtp()) check.mtp();
  check.head();
  return check.to_json();
}

}  // namespace temper::verify
