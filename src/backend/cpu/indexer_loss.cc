// The loss that teaches the indexer on the CPU: cuts queries into runs of equal cost, one per thread, and calls the
// kernels of the best instruction level. f64 operands go to the scalar reference.
#include <numeric>

#include "backend/cpu/indexer.h"

#define TEMPER_KERNELS "backend/cpu/indexer_loss_kernels.inc"
#include "backend/cpu/tile_for_each_isa.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

// Entries [begin, end) of dk that a run of queries sees.
struct Slice {
  float* dk;
  int64_t begin = 0, end = 0;
};

Slice open_slice(const AttentionRanges& ranges, int64_t first, int64_t last, float* dk, int64_t dim) {
  Slice slice{dk};
  for (int64_t t = first; t < last; ++t) {
    const int64_t begin = ranges.entry_begin[t], end = begin + ranges.entry_count[t];
    if (begin == end) continue;
    slice.begin = slice.end == 0 ? begin : std::min(slice.begin, begin);
    slice.end = std::max(slice.end, end);
  }
  std::fill(dk + slice.begin * dim, dk + slice.end * dim, 0.0f);
  return slice;
}

// dk = the sum of the slices, in the order of the threads.
void sum_slices(const std::vector<Slice>& slices, const View& dk_CP) {
  const int64_t dim = dk_CP.dim(1);
  float* dk = dk_CP.data<float>();
  parallel_for(dk_CP.dim(0), 64, [&](int64_t begin, int64_t end, int) {
    std::fill(dk + begin * dim, dk + end * dim, 0.0f);
    for (const Slice& slice : slices) {
      const int64_t first = std::max(begin, slice.begin), last = std::min(end, slice.end);
      for (int64_t i = first * dim; i < last * dim; ++i) dk[i] += slice.dk[i];
    }
  });
}

void indexer_loss(Stream* stream, InOut loss_1, Out dq_TIP, Out dk_CP, Out dw_TI, In q_TIP, In k_CP, In w_TI, In q_TNH,
                  In k_CH, In lse_TN, KeyRanges ranges, double attention_scale, double index_scale, double coefficient,
                  Out workspace) {
  if (q_TIP.dtype == DType::kF64)
    return cpu_reference().ops.indexer_loss(stream, loss_1, dq_TIP, dk_CP, dw_TI, q_TIP, k_CP, w_TI, q_TNH, k_CH,
                                            lse_TN, ranges, attention_scale, index_scale, coefficient, workspace);
  const int64_t num_queries = q_TIP.dim(0), dim = k_CP.dim(1);
  CHECK(q_TNH.dtype == q_TIP.dtype && k_CH.dtype == q_TIP.dtype && k_CP.dtype == q_TIP.dtype, q_TNH.to_string());
  CHECK(dq_TIP.dtype == q_TIP.dtype && dw_TI.dtype == q_TIP.dtype, dq_TIP.to_string(), dw_TI.to_string());
  CHECK(workspace.size() >= num_threads() * k_CP.size(), workspace.to_string(), k_CP.to_string());
  const IndexerLoss operands{.ranges = AttentionRanges(ranges, num_queries),
                             .q = q_TIP.raw(),
                             .k = k_CP.raw(),
                             .query = q_TNH.raw(),
                             .key = k_CH.raw(),
                             .w = w_TI.data<float>(),
                             .lse = lse_TN.data<float>(),
                             .dq = dq_TIP.raw(),
                             .dw = dw_TI.raw(),
                             .divergence = call_floats(num_queries),
                             .num_index_heads = q_TIP.dim(1),
                             .index_dim = dim,
                             .num_heads = q_TNH.dim(1),
                             .head_dim = q_TNH.dim(2),
                             .attention_scale = static_cast<float>(attention_scale),
                             .index_scale = static_cast<float>(index_scale),
                             .coefficient = static_cast<float>(coefficient)};
  const AttentionRanges& seen = operands.ranges;
  const auto kernel = q_TIP.dtype == DType::kF32 ? TEMPER_BEST_ISA(indexer_loss_queries<float>)
                                                 : TEMPER_BEST_ISA(indexer_loss_queries<bf16>);
  const auto bounds = partition_queries(num_queries, num_threads(), [&](int64_t t) -> int64_t {
    return 1 + (seen.selected == nullptr ? seen.num_entries(t) : std::min(seen.num_entries(t), seen.max_selected));
  });
  std::vector<Slice> slices(num_threads());
  parallel_for(num_threads(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      slices[i] = open_slice(seen, bounds[i], bounds[i + 1], workspace.data<float>() + i * k_CP.size(), dim);
      kernel(bounds[i], bounds[i + 1], operands, slices[i].dk);
    }
  });
  sum_slices(slices, dk_CP);
  const double loss = std::accumulate(operands.divergence, operands.divergence + num_queries, 0.0);
  *loss_1.data<float>() += static_cast<float>(loss);
}

}  // namespace

void register_indexer_loss(OpTable& ops) { ops.indexer_loss = indexer_loss; }

}  // namespace temper::backend
