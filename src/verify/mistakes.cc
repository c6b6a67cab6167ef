#include "verify/mistakes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "verify/difference.h"

namespace temper::verify {
namespace {

using backend::CompressRanges;

// A copy with the first and the second half of the last dim exchanged.
View with_halves_exchanged(Storage& storage, const View& view) {
  const View out = storage.copy(view), original = storage.copy(view);
  const int64_t columns = view.dim(view.rank() - 1), half = columns / 2;
  for (int64_t i = 0; i < view.size(); ++i)
    out.data<double>()[i] = original.data<double>()[i / columns * columns + (i % columns + half) % columns];
  return out;
}

// Reorders the last 2P channels of each head: pairs (k, P+k) become neighbours (2k, 2k+1), or back.
View with_pairs_moved(Storage& storage, const View& x_TNH, int64_t P, bool back) {
  const View out = storage.copy(x_TNH), original = storage.copy(x_TNH);
  const int64_t H = x_TNH.dim(2);
  for (int64_t head = 0; head < x_TNH.size() / H; ++head) {
    double* to = out.data<double>() + (head + 1) * H - 2 * P;
    const double* from = original.data<double>() + (head + 1) * H - 2 * P;
    for (int64_t k = 0; k < P; ++k)
      for (int64_t i = 0; i < 2; ++i) back ? to[i * P + k] = from[2 * k + i] : to[2 * k + i] = from[i * P + k];
  }
  return out;
}

void copy_to(const View& out, const View& from) {
  CHECK(out.contiguous() && from.contiguous() && out.size() == from.size(), out.to_string(), from.to_string());
  std::memcpy(out.raw(), from.raw(), static_cast<size_t>(out.num_bytes()));
}

double router_score(double z) { return std::sqrt(z > 20 ? z : std::log1p(std::exp(z))); }

}  // namespace

std::vector<Mistake> known_mistakes(OpTag<OpId::hc_post_forward>, const OpTable& reference, Storage&, Out, In x_TMD,
                                    In y_TD, In post_TM, In comb_TMM) {
  return {
      {"comb is transposed: the streams are mixed over its second index (comb[k, j]) instead of its first "
       "(architecture page 3.2)",
       [=, &reference](const View& out) {
         reference.hc_post_forward(nullptr, out, x_TMD, y_TD, post_TM, comb_TMM.transpose(1, 2));
       }}};
}

std::vector<Mistake> known_mistakes(OpTag<OpId::compress_forward>, const OpTable& reference, Storage& storage, Out v_CH,
                                    In z_TZ, In g_TZ, In ape_mZ, CompressRanges ranges) {
  std::vector<Mistake> mistakes = {{"the position bias is left out of the compressor's softmax (architecture page 5.2)",
                                    [=, &reference, &storage](const View& out) {
                                      reference.compress_forward(nullptr, out, z_TZ, g_TZ,
                                                                 storage.zeros(DType::kF64, ape_mZ.shape), ranges);
                                    }}};
  if (z_TZ.dim(1) != 2 * v_CH.dim(1)) return mistakes;
  mistakes.push_back(
      {"the halves of the CSA projections are exchanged: channels 0..H-1 belong to the next window's "
       "entry, H..2H-1 to the own one (architecture page 5.2)",
       [=, &reference, &storage](const View& out) {
         reference.compress_forward(nullptr, out, with_halves_exchanged(storage, z_TZ),
                                    with_halves_exchanged(storage, g_TZ), with_halves_exchanged(storage, ape_mZ),
                                    ranges);
       }});
  mistakes.push_back({"the previous window is left out of CSA entries (architecture page 5.2)",
                      [=, &reference, &storage](const View& out) {
                        CompressRanges alone = ranges;
                        alone.prev_row_C = storage.copy(ranges.prev_row_C);
                        std::fill_n(alone.prev_row_C.data<int32_t>(), alone.prev_row_C.size(), -1);
                        reference.compress_forward(nullptr, out, z_TZ, g_TZ, ape_mZ, alone);
                      }});
  return mistakes;
}

std::vector<Mistake> known_mistakes(OpTag<OpId::rope>, const OpTable& reference, Storage& storage, Out, In x_TNH,
                                    In cos_sin_LP2, In position_T, double sign) {
  return {{sign < 0 ? "the inverse rotation is missing: values carry their keys' rotation, so the attention output is "
                      "rotated back (architecture page 5.6)"
                    : "the rotation is missing (architecture page 4.3)",
           [=, &storage](const View& out) { copy_to(out, storage.copy(x_TNH)); }},
          {"it rotates the wrong way (architecture page 4.3)",
           [=, &reference](const View& out) { reference.rope(nullptr, out, x_TNH, cos_sin_LP2, position_T, -sign); }},
          {"it pairs channel k with k + R/2; pairs are neighbours (architecture page 4.3)",
           [=, &reference, &storage](const View& out) {
             const int64_t P = cos_sin_LP2.dim(1);
             const View moved = with_pairs_moved(storage, x_TNH, P, false);
             reference.rope(nullptr, moved, moved, cos_sin_LP2, position_T, sign);
             copy_to(out, with_pairs_moved(storage, moved, P, true));
           }}};
}

std::vector<Mistake> known_mistakes(OpTag<OpId::router_weights_forward>, const OpTable& reference, Storage&, Out,
                                    In z_TE, In index_TK, double scaling) {
  return {{"the router's weights are not normalised: they are not divided by the sum of the chosen scores "
           "(architecture page 6.1)",
           [=](const View& out) {
             const auto z = to_doubles(z_TE), index = to_doubles(index_TK);
             const int64_t K = index_TK.dim(1), E = z_TE.dim(1);
             for (int64_t i = 0; i < index_TK.size(); ++i)
               out.data<double>()[i] = scaling * router_score(z[i / K * E + static_cast<int64_t>(index[i])]);
           }},
          {"the router's weights lack routed_scaling_factor (architecture page 6.1)",
           [=, &reference](const View& out) { reference.router_weights_forward(nullptr, out, z_TE, index_TK, 1); }}};
}

std::vector<Mistake> known_mistakes(OpTag<OpId::router_topk>, const OpTable& reference, Storage& storage, Out, In z_TE,
                                    In bias_E) {
  return {{"the correction bias is left out of the choice of experts (architecture page 6.1)",
           [=, &reference, &storage](const View& out) {
             reference.router_topk(nullptr, out, z_TE, storage.zeros(DType::kF64, bias_E.shape));
           }}};
}

std::vector<Mistake> known_mistakes(OpTag<OpId::swiglu_forward>, const OpTable& reference, Storage& storage, Out,
                                    In gu_RG, In w_R, double limit) {
  return {{"gate and up are exchanged: w1 makes the first half, w3 the second (architecture page 6.2)",
           [=, &reference, &storage](const View& out) {
             reference.swiglu_forward(nullptr, out, with_halves_exchanged(storage, gu_RG), w_R, limit);
           }},
          {"swiglu_limit is not applied (architecture page 6.2)",
           [=, &reference](const View& out) {
             reference.swiglu_forward(nullptr, out, gu_RG, w_R, std::numeric_limits<double>::max());
           }},
          {"the router's weight is left out (architecture page 6.2)",
           [=, &reference](const View& out) { reference.swiglu_forward(nullptr, out, gu_RG, View{}, limit); }}};
}

std::vector<Mistake> known_mistakes(OpTag<OpId::attention_forward>, const OpTable& reference, Storage& storage, Out,
                                    Out lse_TN, In q_TNH, In c_JH, In k_CH, In sink_N, KeyRanges ranges, double scale) {
  const View lse = storage.zeros(DType::kF64, lse_TN.shape);
  std::vector<Mistake> mistakes = {
      {"the sink is left out of the softmax (architecture page 5.5)",
       [=, &reference, &storage](const View& out) {
         const View none = storage.copy(sink_N);
         std::fill_n(none.data<double>(), none.size(), -1e30);
         reference.attention_forward(nullptr, out, lse, q_TNH, c_JH, k_CH, none, ranges, scale);
       }},
      {"scores are not scaled by head_dim^-1/2 (architecture page 5.5)", [=, &reference](const View& out) {
         reference.attention_forward(nullptr, out, lse, q_TNH, c_JH, k_CH, sink_N, ranges, 1);
       }}};
  if (!k_CH.defined()) return mistakes;
  mistakes.push_back({"compressed entries are left out (architecture page 5.5)", [=, &reference](const View& out) {
                        KeyRanges window = ranges;
                        window.entry_begin_T = window.entry_count_T = window.selected_TA = View{};
                        reference.attention_forward(nullptr, out, lse, q_TNH, c_JH, View{}, sink_N, window, scale);
                      }});
  return mistakes;
}

}  // namespace temper::verify
