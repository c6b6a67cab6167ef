// Mistakes that implementations of DeepSeek-V4 have made, as programs: each makes of an op's operands what the mistake
// would make of them. An op that differs from the reference and equals such a result has this cause, by evidence.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backend/ops.h"
#include "verify/storage.h"

namespace temper::verify {

struct Mistake {
  std::string text;
  std::function<void(const View& out)> make;  // writes the mistaken first output; f64 or the integers of the op
};

template <backend::OpId kId>
struct OpTag {};

// Of the operands of a call, which must not have been overwritten yet. `reference` makes the results, `storage` holds
// what they need. Ops without an overload have no known mistake.
template <backend::OpId kId, class... Args>
std::vector<Mistake> known_mistakes(OpTag<kId>, const backend::OpTable&, Storage&, Args...) {
  return {};
}

using backend::CompressRanges;
using backend::In;
using backend::KeyRanges;
using backend::OpId;
using backend::OpTable;
using backend::Out;

std::vector<Mistake> known_mistakes(OpTag<OpId::hc_post_forward>, const OpTable& reference, Storage& storage,
                                    Out xo_TMD, In x_TMD, In y_TD, In post_TM, In comb_TMM);
std::vector<Mistake> known_mistakes(OpTag<OpId::compress_forward>, const OpTable& reference, Storage& storage, Out v_CH,
                                    In z_TZ, In g_TZ, In ape_mZ, CompressRanges ranges);
std::vector<Mistake> known_mistakes(OpTag<OpId::rope>, const OpTable& reference, Storage& storage, Out y_TNH, In x_TNH,
                                    In cos_sin_LP2, In position_T, double sign);
std::vector<Mistake> known_mistakes(OpTag<OpId::router_weights_forward>, const OpTable& reference, Storage& storage,
                                    Out weight_TK, In z_TE, In index_TK, double scaling);
std::vector<Mistake> known_mistakes(OpTag<OpId::router_topk>, const OpTable& reference, Storage& storage, Out index_TK,
                                    In z_TE, In bias_E);
std::vector<Mistake> known_mistakes(OpTag<OpId::swiglu_forward>, const OpTable& reference, Storage& storage, Out a_RF,
                                    In gu_RG, In w_R, double limit);
std::vector<Mistake> known_mistakes(OpTag<OpId::attention_forward>, const OpTable& reference, Storage& storage,
                                    Out o_TNH, Out lse_TN, In q_TNH, In c_JH, In k_CH, In sink_N, KeyRanges ranges,
                                    double scale);

}  // namespace temper::verify
