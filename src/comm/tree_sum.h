// Sums and maxima over ranks in the one order of comm.h.
#pragma once

#include <cstdint>
#include <span>

#include "comm/comm.h"

namespace temper::comm {

// to [count] <- the sum (maximum) over r of from[r] [count], in the balanced tree of comm.h; bf16 is added in f32 and
// rounded once. f32, f64, bf16, i32, i64. to may be one of from. Any count; results do not depend on how a longer
// range is cut.
void reduce_tree(void* to, std::span<const void* const> from, int64_t count, DType dtype, Reduce reduce);

// Throws kInvalidArgument for a dtype that cannot be summed.
void check_reducible(DType dtype, const char* op);

}  // namespace temper::comm
