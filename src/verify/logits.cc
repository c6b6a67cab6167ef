#include "verify/logits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "verify/difference.h"

namespace temper::verify {

void LogitComparison::add(int64_t first, const View& ours_TC, const View& theirs_TC) {
  CHECK(ours_TC.shape == theirs_TC.shape, ours_TC.to_string(), theirs_TC.to_string());
  for (int64_t t = 0; t < ours_TC.dim(0); ++t) {
    const auto ours = to_doubles(ours_TC.rows(t, t + 1)), theirs = to_doubles(theirs_TC.rows(t, t + 1));
    Token& token = tokens_[static_cast<size_t>(first + t)];
    for (size_t c = 0; c < ours.size(); ++c, ++token.columns) {
      const double a = ours[c], b = theirs[c];
      if (!std::isfinite(a) || !std::isfinite(b)) {
        ++token.non_finite;
        continue;
      }
      if (token.our_best < 0 || a > token.our_max) {
        const double shrink = token.our_best < 0 ? 0 : std::exp(token.our_max - a);
        token.our_sum *= shrink, token.our_product *= shrink;
        token.our_max = a, token.our_best = token.columns;
      }
      if (token.their_best < 0 || b > token.their_max) {
        token.their_sum *= token.their_best < 0 ? 0 : std::exp(token.their_max - b);
        token.their_max = b, token.their_best = token.columns;
      }
      const double weight = std::exp(a - token.our_max);
      token.our_sum += weight, token.our_product += weight * (a - b);
      token.their_sum += std::exp(b - token.their_max);
      token.dot += a * b, token.our_squares += a * a, token.their_squares += b * b;
      token.difference = std::max(token.difference, std::abs(a - b)),
      token.largest = std::max(token.largest, std::abs(b));
    }
  }
}

double LogitComparison::kl(int64_t token) const {
  const Token& t = tokens_[static_cast<size_t>(token)];
  if (t.our_best < 0) return 0;
  const double ours = t.our_max + std::log(t.our_sum), theirs = t.their_max + std::log(t.their_sum);
  return std::max(0.0, t.our_product / t.our_sum - ours + theirs);
}

LogitComparison::Result LogitComparison::result(int64_t begin, int64_t end) const {
  Result out;
  out.num_tokens = end - begin;
  double largest = 0;
  int64_t same_best = 0;
  for (int64_t t = begin; t < end; ++t) {
    const Token& token = tokens_[static_cast<size_t>(t)];
    const double kl_t = kl(t), squares = token.our_squares * token.their_squares;
    out.mean_kl += kl_t / static_cast<double>(end - begin);
    if (out.worst_token < 0 || kl_t > out.max_kl) out.max_kl = kl_t, out.worst_token = t - begin;
    out.mean_cosine += (squares > 0 ? token.dot / std::sqrt(squares) : 1) / static_cast<double>(end - begin);
    same_best += token.our_best == token.their_best;
    out.max_difference = std::max(out.max_difference, token.difference);
    largest = std::max(largest, token.largest);
    out.num_non_finite += token.non_finite;
  }
  out.top1_agreement = static_cast<double>(same_best) / static_cast<double>(end - begin);
  if (largest > 0) out.max_difference /= largest;
  return out;
}

std::string logits_header() {
  return fmt::format("{:<12} {:>7} {:>10} {:>10} {:>6} {:>12} {:>8} {:>10}\n", "logits", "tokens", "mean KL", "max KL",
                     "at", "cosine", "top-1", "max diff");
}

std::string logits_line(const std::string& name, const LogitComparison::Result& r) {
  return fmt::format("{:<12} {:>7} {:>10.3e} {:>10.3e} {:>6} {:>12.9f} {:>7.2f}% {:>10.2e}\n", name, r.num_tokens,
                     r.mean_kl, r.max_kl, r.worst_token, r.mean_cosine, 100 * r.top1_agreement, r.max_difference);
}

nlohmann::json to_json(const LogitComparison::Result& r) {
  return {{"tokens", r.num_tokens},
          {"mean_kl", r.mean_kl},
          {"max_kl", r.max_kl},
          {"worst_token", r.worst_token},
          {"mean_cosine", r.mean_cosine},
          {"top1_agreement", r.top1_agreement},
          {"max_difference", r.max_difference},
          {"non_finite", r.num_non_finite}};
}

void judge_logits(const std::string& name, const LogitComparison::Result& r, const LogitGates& gates,
                  const std::string& cause, Findings& findings) {
  if (r.num_non_finite > 0)
    findings.fail(kNoLayer, name, fmt::format("{} logits are NaN or infinite on one side", r.num_non_finite), cause);
  else if (!(r.mean_kl <= gates.max_kl))
    findings.fail(kNoLayer, name,
                  fmt::format("mean KL divergence {:.3g}, allowed {:.3g} (worst token: {}, {:.3g})", r.mean_kl,
                              gates.max_kl, r.worst_token, r.max_kl),
                  cause);
  else if (!(r.mean_cosine >= gates.min_cosine))
    findings.fail(kNoLayer, name,
                  fmt::format("mean cosine {:.6f} of the logits, allowed {:.6f}", r.mean_cosine, gates.min_cosine),
                  cause);
}

}  // namespace temper::verify
