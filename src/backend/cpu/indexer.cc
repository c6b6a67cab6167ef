// The lightning indexer on the CPU: cuts queries into runs of equal cost, one per thread, and calls the kernels of the
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
  // A query costs what it scores: runs of equal cost, and tiles are small enough for any split.
  const auto cost = [&](int64_t t) -> int64_t {
    return operands.entry_count[t] > operands.max_selected ? operands.entry_count[t] : 1;
  };
  int64_t total = 0;
  for (int64_t t = 0; t < num_queries; ++t) total += cost(t);
  std::vector<int64_t> bounds(num_threads() + 1, num_queries), largest(num_threads(), 0);
  bounds[0] = 0;
  int part = 0;
  for (int64_t t = 0, sum = 0; t < num_queries; ++t) {
    while (part + 1 < num_threads() && sum * num_threads() >= total * (part + 1)) bounds[++part] = t;
    largest[part] = std::max<int64_t>(largest[part], operands.entry_count[t]);
    sum += cost(t);
  }
  parallel_for(num_threads(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) kernel(bounds[i], bounds[i + 1], largest[i], operands);
  });
}

}  // namespace

void register_indexer(OpTable& ops) { ops.index_topk = index_topk; }

}  // namespace temper::backend
