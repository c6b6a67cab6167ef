#include "parallel/stages.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/error.h"

namespace temper::parallel {
namespace {

using model::AttentionKind;

// Mean over a document's S positions of the keys that the window shows: min(p + 1, window).
double mean_window(double S, double window) {
  return S <= window ? (S + 1) / 2 : window - window * (window - 1) / (2 * S);
}

// The same of compressed entries, one per `rate` tokens, of which at most `most` are attended to: min((p + 1) / rate,
// most).
double mean_entries(int64_t document_tokens, int64_t rate, int64_t most) {
  const auto S = static_cast<double>(document_tokens), m = static_cast<double>(rate);
  const auto q = static_cast<double>(document_tokens / rate), r = static_cast<double>(document_tokens % rate);
  const auto K = static_cast<double>(most);
  if (document_tokens / rate <= most) return (m * q * (q - 1) / 2 + q * (r + 1)) / S;
  return (m * K * (K - 1) / 2 + K + (S - m * K) * K) / S;
}

// A block: attention of that kind, experts, hyper-connections.
double block_flops(const model::Config& c, AttentionKind kind, int64_t document_tokens) {
  constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  const int64_t D = c.hidden_size, Q = c.q_lora_rank, X = c.num_attention_heads * c.head_dim, M = c.hc_mult;
  const int64_t O = c.o_lora_rank, W = c.index_n_heads * c.index_head_dim;
  int64_t weights = D * Q + Q * X + D * c.head_dim + X * O + c.o_groups * O * D;
  weights += 3 * D * c.moe_intermediate_size * (c.num_experts_per_tok + 1) + D * c.n_routed_experts;
  weights += 2 * (2 * M + M * M) * M * D;
  double keys = mean_window(static_cast<double>(document_tokens), static_cast<double>(c.sliding_window));
  double scored = 0;  // entries that the indexer scores
  if (kind == AttentionKind::kHca) {
    weights += 2 * D * c.head_dim;
    keys += mean_entries(document_tokens, c.hca_rate, kAll);
  } else if (kind == AttentionKind::kCsa) {
    weights += 4 * D * c.head_dim;
    keys += mean_entries(document_tokens, c.csa_rate, c.index_topk);
    if (document_tokens / c.csa_rate > c.index_topk) {
      weights += Q * W + D * c.index_n_heads + 4 * D * c.index_head_dim;
      scored = mean_entries(document_tokens, c.csa_rate, kAll);
    }
  }
  return 2 * static_cast<double>(weights) + 4 * static_cast<double>(X) * keys + 2 * static_cast<double>(W) * scored;
}

// The best cut of L layers into P parts: the ends of its parts. cost(p, i, j): of part p with layers [i, j). join(cost,
// rest): what a part's cost makes of the value of the cut behind it; less is better, and infinite is forbidden.
template <class Cost, class Join>
std::vector<int64_t> best_cut(int64_t L, int64_t P, const Cost& cost, const Join& join) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  // Of the best cut of layers [i, L) into the parts behind p, and into p and those; from the last part up.
  std::vector<double> rest(L + 1, kInfinite), value(L + 1);
  std::vector<std::vector<int64_t>> end(P, std::vector<int64_t>(L + 1, L));
  rest[L] = 0;
  for (int64_t p = P - 1; p >= 0; --p) {
    std::ranges::fill(value, kInfinite);
    for (int64_t i = p; i < L; ++i) {
      for (int64_t j = i + 1; j <= L; ++j) {
        const double joined = join(cost(p, i, j), rest[j]);
        // Better by more than rounding, so that of equal cuts the one with the shorter part stays.
        if (!(joined < value[i] * (1 - 1e-12))) continue;
        value[i] = joined;
        end[p][i] = j;
      }
    }
    std::swap(rest, value);
  }
  std::vector<int64_t> ends;
  for (int64_t p = 0, i = 0; p < P; ++p) ends.push_back(i = end[p][i]);
  return ends;
}

}  // namespace

LayerCosts forward_flops(const model::Config& c, int64_t document_tokens, bool mtp) {
  CHECK(document_tokens > 0, document_tokens);
  const auto D = static_cast<double>(c.hidden_size), M = static_cast<double>(c.hc_mult);
  LayerCosts costs;
  for (const AttentionKind kind : c.layer_types) costs.layer_L.push_back(block_flops(c, kind, document_tokens));
  const double collapse_and_head = 2 * M * M * D + 2 * static_cast<double>(c.vocab_size) * D;
  costs.last = collapse_and_head;
  // e_proj sees a token once, h_proj every stream of it.
  if (mtp)
    costs.last += collapse_and_head + 2 * (1 + M) * D * D + block_flops(c, AttentionKind::kSliding, document_tokens);
  return costs;
}

double document_flops(const model::Config& config, int64_t num_tokens) {
  const LayerCosts flops = forward_flops(config, num_tokens, false);
  return static_cast<double>(num_tokens) * std::accumulate(flops.layer_L.begin(), flops.layer_L.end(), flops.last);
}

std::vector<LayerRange> split_layers(const LayerCosts& costs, int64_t num_stages, int64_t num_chunks) {
  CHECK(num_stages > 0 && num_chunks > 0, num_stages, num_chunks);
  const auto L = static_cast<int64_t>(costs.layer_L.size());
  if (num_stages > L || num_chunks > L / num_stages)
    fail(ErrorCode::kInvalidArgument,
         "{} stages of {} chunks were asked for, but the model has {} layers, and every chunk needs one; take at most "
         "{}",
         num_stages, num_chunks, L,
         num_stages > L ? fmt::format("{} stages", L) : fmt::format("{} chunks", L / num_stages));
  const int64_t P = num_stages * num_chunks;
  std::vector<double> before(L + 1, 0);  // cost of the layers before each
  for (int64_t l = 0; l < L; ++l) before[l + 1] = before[l] + costs.layer_L[l];
  const auto cost = [&](int64_t p, int64_t i, int64_t j) {
    return before[j] - before[i] + (p == 0 ? costs.first : 0) + (p == P - 1 ? costs.last : 0);
  };
  const std::vector<int64_t> even = best_cut(L, P, cost, [](double part, double rest) { return std::max(part, rest); });
  double most = 0;
  for (int64_t p = 0; p < P; ++p) most = std::max(most, cost(p, p > 0 ? even[p - 1] : 0, even[p]));
  const auto squares = [&](double part, double rest) {
    return part > most ? std::numeric_limits<double>::infinity() : (part / most) * (part / most) + rest;
  };
  std::vector<LayerRange> parts;
  for (const int64_t end : best_cut(L, P, cost, squares)) parts.push_back({parts.empty() ? 0 : parts.back().end, end});
  return parts;
}

}  // namespace temper::parallel
