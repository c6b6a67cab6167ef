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

// A site's products with its hyper-connection's streams.
int64_t hyper_weights(const model::Config& c) {
  const int64_t M = c.hc_mult;
  return (2 * M + M * M) * M * c.hidden_size;
}

double attention_flops(const model::Config& c, AttentionKind kind, int64_t document_tokens) {
  constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  const int64_t D = c.hidden_size, Q = c.q_lora_rank, X = c.num_attention_heads * c.head_dim;
  const int64_t O = c.o_lora_rank, W = c.index_n_heads * c.index_head_dim;
  int64_t weights = D * Q + Q * X + D * c.head_dim + X * O + c.o_groups * O * D + hyper_weights(c);
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

double expert_flops(const model::Config& c) {
  const int64_t weights =
      3 * c.hidden_size * c.moe_intermediate_size * (c.num_experts_per_tok + 1) + c.hidden_size * c.n_routed_experts;
  return 2 * static_cast<double>(weights + hyper_weights(c));
}

// The best cut of S sites into P parts: the ends of its parts. cost(p, i, j): of part p with sites [i, j). join(cost,
// j, rest): what that makes of the value of the cut behind it; less is better, and infinite is forbidden. It grows with
// the part's cost and with rest.
template <class Cost, class Join>
std::vector<int64_t> best_cut(int64_t S, int64_t P, const Cost& cost, const Join& join) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  // Of the best cut of sites [i, S) into the parts behind p, and into p and those; from the last part up.
  std::vector<double> rest(S + 1, kInfinite), value(S + 1);
  std::vector<std::vector<int64_t>> end(P, std::vector<int64_t>(S + 1, S));
  rest[S] = 0;
  for (int64_t p = P - 1; p >= 0; --p) {
    std::ranges::fill(value, kInfinite);
    for (int64_t i = p; i < S; ++i) {
      for (int64_t j = i + 1; j <= S; ++j) {
        const double part = cost(p, i, j);
        if (join(part, 0, 0) >= value[i]) break;  // and longer ones all the more
        const double joined = join(part, j, rest[j]);
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

SiteCosts forward_flops(const model::Config& c, int64_t document_tokens, bool mtp) {
  CHECK(document_tokens > 0, document_tokens);
  const auto D = static_cast<double>(c.hidden_size), M = static_cast<double>(c.hc_mult);
  SiteCosts costs;
  for (const AttentionKind kind : c.layer_types) {
    costs.site_S.push_back(attention_flops(c, kind, document_tokens));
    costs.site_S.push_back(expert_flops(c));
  }
  const double collapse_and_head = 2 * M * M * D + 2 * static_cast<double>(c.vocab_size) * D;
  costs.last = collapse_and_head;
  // e_proj sees a token once, h_proj every stream of it.
  if (mtp)
    costs.last += collapse_and_head + 2 * (1 + M) * D * D +
                  attention_flops(c, AttentionKind::kSliding, document_tokens) + expert_flops(c);
  return costs;
}

double document_flops(const model::Config& config, int64_t num_tokens) {
  const SiteCosts flops = forward_flops(config, num_tokens, false);
  return static_cast<double>(num_tokens) * std::accumulate(flops.site_S.begin(), flops.site_S.end(), flops.last);
}

std::vector<SiteRange> split_sites(const SiteCosts& costs, int64_t num_stages, int64_t num_chunks) {
  CHECK(num_stages > 0 && num_chunks > 0, num_stages, num_chunks);
  const auto S = static_cast<int64_t>(costs.site_S.size());
  if (num_stages > S || num_chunks > S / num_stages)
    fail(ErrorCode::kInvalidArgument,
         "{} stages of {} chunks were asked for, but the model has {} layers, and every chunk needs the attention or "
         "the experts of one; take at most {}",
         num_stages, num_chunks, S / 2,
         num_stages > S ? fmt::format("{} stages", S) : fmt::format("{} chunks", S / num_stages));
  const int64_t P = num_stages * num_chunks;
  std::vector<double> before(S + 1, 0);  // cost of the sites before each
  for (int64_t s = 0; s < S; ++s) before[s + 1] = before[s] + costs.site_S[s];
  // Of all passes, backward as two forward ones.
  const auto cost = [&](int64_t p, int64_t i, int64_t j) {
    const int64_t last_layer = std::max(i, (j - 1) / 2 * 2);
    const double rebuilt = costs.rebuilds ? before[last_layer] - before[i] : 0;
    return 3 * (before[j] - before[i] + (p == 0 ? costs.first : 0) + (p == P - 1 ? costs.last : 0)) + rebuilt;
  };
  const std::vector<int64_t> even =
      best_cut(S, P, cost, [](double part, int64_t, double rest) { return std::max(part, rest); });
  double most = 0;
  for (int64_t p = 0; p < P; ++p) most = std::max(most, cost(p, p > 0 ? even[p - 1] : 0, even[p]));
  constexpr double kLayerIsCut = 1e-9;  // decides where all else is equal
  const auto squares = [&](double part, int64_t end, double rest) {
    if (part > most * (1 + 1e-12)) return std::numeric_limits<double>::infinity();
    return (part / most) * (part / most) + (end % 2 == 1 ? kLayerIsCut : 0) + rest;
  };
  std::vector<SiteRange> parts;
  for (const int64_t end : best_cut(S, P, cost, squares)) parts.push_back({parts.empty() ? 0 : parts.back().end, end});
  return parts;
}

std::string describe(const SiteRange& sites) {
  std::vector<std::string> words;
  const int64_t first = (sites.begin + 1) / 2, last = sites.end / 2 - 1;  // of whole layers
  if (sites.begin % 2 == 1) words.push_back(fmt::format("the experts of layer {}", sites.begin / 2));
  if (first == last) words.push_back(fmt::format("layer {}", first));
  if (first < last) words.push_back(fmt::format("layers {} to {}", first, last));
  if (sites.end % 2 == 1) words.push_back(fmt::format("the attention of layer {}", sites.end / 2));
  return fmt::format("{}", fmt::join(words, ", "));
}

}  // namespace temper::parallel
