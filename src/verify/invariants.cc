#include "verify/invariants.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "verify/difference.h"

namespace temper::verify {
namespace {

// The last step divides by the column's sum plus hc_eps; f32 sums of four.
constexpr double kMaxColumn = 1e-4, kMaxRouterWeight = 1e-4, kMinSinkMargin = -1e-3;
constexpr double kOddRow = 0.1;  // beyond which the mixer is far from converged

void add_comb(Invariants& out, const View& comb_TMM) {
  const auto comb = to_doubles(comb_TMM);
  const int64_t T = comb_TMM.dim(0), M = comb_TMM.dim(1);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t a = 0; a < M; ++a) {
      double row = 0, column = 0;
      for (int64_t b = 0; b < M; ++b) {
        const double in_row = comb[(t * M + a) * M + b];
        row += in_row, column += comb[(t * M + b) * M + a];
        out.comb_min = std::min(out.comb_min, in_row);
      }
      out.comb_row = std::max(out.comb_row, std::abs(row - 1));
      out.comb_column = std::max(out.comb_column, std::abs(column - 1));
    }
}

}  // namespace

Invariants measure_invariants(const model::Block& block, const View& sink_N, const model::Config& config, int64_t layer,
                              int64_t num_tokens) {
  Invariants out;
  const model::Block::Saved& saved = block.saved();
  const int64_t T = num_tokens;
  add_comb(out, saved.attention_site.hyper.comb_TMM.first(T));
  add_comb(out, saved.moe_site.hyper.comb_TMM.first(T));

  const auto weight = to_doubles(saved.moe.weight_TK.first(T)), expert = to_doubles(block.choices(T).expert_TK);
  const bool is_hash = layer < config.num_hidden_layers && config.is_hash_moe[layer];  // a table may repeat itself
  const int64_t K = saved.moe.weight_TK.dim(1);
  for (int64_t t = 0; t < T; ++t) {
    double sum = 0;
    std::set<double> different;
    bool outside = false;
    for (int64_t k = 0; k < K; ++k) {
      sum += weight[t * K + k];
      different.insert(expert[t * K + k]);
      outside = outside || expert[t * K + k] < 0 || expert[t * K + k] >= static_cast<double>(config.n_routed_experts);
    }
    out.router_weight = std::max(out.router_weight, std::abs(sum / config.routed_scaling_factor - 1));
    out.num_bad_choices += outside || (!is_hash && static_cast<int64_t>(different.size()) < K);
  }

  const auto lse = to_doubles(saved.attention.lse_TN.first(T)), sink = to_doubles(sink_N);
  for (size_t i = 0; i < lse.size(); ++i) out.sink_margin = std::min(out.sink_margin, lse[i] - sink[i % sink.size()]);
  return out;
}

void report_invariants(const Invariants& invariants, int64_t layer, Findings& findings) {
  if (!(invariants.comb_column <= kMaxColumn) || !(invariants.comb_min >= 0))
    findings.fail(layer, "hyper-connection",
                  fmt::format("comb is not doubly stochastic: a column sums to 1 +- {:.2g}, allowed {:.2g}; smallest "
                              "entry {:.2g}",
                              invariants.comb_column, kMaxColumn, invariants.comb_min));
  else if (!(invariants.comb_row <= kOddRow))
    findings.note(layer, "hyper-connection",
                  fmt::format("Sinkhorn has not converged: a row of comb sums to 1 +- {:.2g}", invariants.comb_row));
  if (!(invariants.router_weight <= kMaxRouterWeight))
    findings.fail(layer, "router",
                  fmt::format("a token's weights sum to routed_scaling_factor times 1 +- {:.2g}, allowed {:.2g}",
                              invariants.router_weight, kMaxRouterWeight),
                  "the weights are not normalised over the chosen experts, or not scaled (architecture page 6.1)");
  if (invariants.num_bad_choices > 0)
    findings.fail(layer, "router",
                  fmt::format("{} tokens have an expert twice, or one that is not there", invariants.num_bad_choices));
  if (!(invariants.sink_margin >= kMinSinkMargin))
    findings.fail(layer, "attention",
                  fmt::format("a log-sum-exp is {:.2g} below its head's sink, which is one of its terms",
                              -invariants.sink_margin),
                  "the sink is left out of the softmax (architecture page 5.5)");
}

}  // namespace temper::verify
