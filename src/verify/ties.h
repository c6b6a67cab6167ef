// Choices between scores that rounding cannot tell apart: fast and reference may choose otherwise, and both are right.
#pragma once

#include "verify/checked.h"
#include "verify/mistakes.h"

namespace temper::verify {

// Called when the choices of an op differ. Where in every row that differs the scores in question are closer than
// rounding (1e-5 of the largest score of the row), error becomes 0 and num_ties grows by those rows; otherwise
// error.row is the first row that has no such excuse. want_TK: the reference's choice.
template <OpId kId, class... Args>
void excuse_ties(OpTag<kId>, int64_t&, OpError&, const Args&...) {}

void excuse_ties(OpTag<OpId::router_topk>, int64_t& num_ties, OpError& error, const Out& want_TK, const Out& got_TK,
                 const In& z_TE, const In& bias_E);
void excuse_ties(OpTag<OpId::index_topk>, int64_t& num_ties, OpError& error, const Out& want_TA, const Out& got_TA,
                 const In& q_TIP, const In& k_CP, const In& w_TI, const In& entry_begin_T, const In& entry_count_T,
                 const double& scale);

}  // namespace temper::verify
