// The indexer's choice on the CPU: cuts queries into runs of equal cost, one per thread, and calls the kernels of the
// best instruction level. f64 operands go to the scalar reference.
#include "backend/cpu/indexer.h"

#include "backend/cpu/cpu_internal.h"

#define TEMPER_KERNELS "backend/cpu/indexer_kernels.inc"
#include "backend/cpu/tile_for_each_isa.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

void index_topk(Stream* stream, Out selected_TA, In q_TIP, In k_CP, In w_TI, In entry_begin_T, In entry_count_T,
                double scale) {
  if (q_TIP.dtype == DType::kF64)
    return cpu_reference().ops.index_topk(stream, selected_TA, q_TIP, k_CP, w_TI, entry_begin_T, entry_count_T, scale);
  const int64_t num_queries = q_TIP.dim(0);
  const IndexOperands operands{.q = q_TIP.raw(),
                               .k = k_CP.raw(),
                               .w = w_TI.data<float>(),
                               .entry_begin = entry_begin_T.data<int32_t>(),
                               .entry_count = entry_count_T.data<int32_t>(),
                               .selected = selected_TA.data<int32_t>(),
                               .num_heads = q_TIP.dim(1),
                               .head_dim = q_TIP.dim(2),
                               .max_selected = selected_TA.dim(1),
                               .scale = static_cast<float>(scale)};
  const auto kernel = q_TIP.dtype == DType::kF32 ? TEMPER_BEST_ISA(index_topk_queries<float>)
                                                 : TEMPER_BEST_ISA(index_topk_queries<bf16>);
  const auto bounds = partition_queries(num_queries, num_threads(), [&](int64_t t) -> int64_t {
    return operands.entry_count[t] > operands.max_selected ? operands.entry_count[t] : 1;
  });
  parallel_for(num_threads(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) kernel(bounds[i], bounds[i + 1], operands);
  });
}

}  // namespace

void register_indexer(OpTable& ops) {
  ops.index_topk = index_topk;
  register_indexer_loss(ops);
}

}  // namespace temper::backend
