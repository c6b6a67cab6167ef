// Attention on the CPU: cuts queries into runs of equal cost, one per thread, and calls the kernels of the best
// instruction level. f64 operands go to the scalar reference.
#include "backend/cpu/attention.h"

#include "backend/cpu/cpu_internal.h"

#define TEMPER_KERNELS "backend/cpu/attention_kernels.inc"
#include "backend/cpu/tile_for_each_isa.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

bool has_kernel(const View& q_TNH) {
  return (q_TNH.dtype == DType::kF32 || q_TNH.dtype == DType::kBF16) && q_TNH.contiguous();
}

// Rows of a tile, unless one query has more heads: their sums stay in the second cache.
int64_t forward_rows(int64_t head_dim) { return std::max<int64_t>(256, (1 << 16) / head_dim); }
constexpr int64_t kBackwardRows = 256;

void attention_forward(Stream* stream, Out o_TNH, Out lse_TN, In q_TNH, In c_JH, In k_CH, In sink_N, KeyRanges ranges,
                       double scale) {
  if (!has_kernel(q_TNH))
    return cpu_reference().ops.attention_forward(stream, o_TNH, lse_TN, q_TNH, c_JH, k_CH, sink_N, ranges, scale);
  const int64_t num_queries = q_TNH.dim(0), num_heads = q_TNH.dim(1);
  if (num_queries == 0) return;
  CHECK(c_JH.dtype == q_TNH.dtype && o_TNH.dtype == q_TNH.dtype, c_JH.to_string(), o_TNH.to_string());
  const AttentionForward operands{.ranges = AttentionRanges(ranges, num_queries),
                                  .shape = TileShape(num_queries, num_heads, forward_rows(q_TNH.dim(2))),
                                  .q = q_TNH.raw(),
                                  .c = c_JH.raw(),
                                  .k = k_CH.defined() ? k_CH.raw() : nullptr,
                                  .sink = sink_N.data<float>(),
                                  .o = o_TNH.raw(),
                                  .lse = lse_TN.data<float>(),
                                  .num_heads = num_heads,
                                  .head_dim = q_TNH.dim(2),
                                  .num_window_rows = c_JH.dim(0),
                                  .scale = static_cast<float>(scale)};
  const auto kernel = q_TNH.dtype == DType::kF32 ? TEMPER_BEST_ISA(attention_forward_queries<float>)
                                                 : TEMPER_BEST_ISA(attention_forward_queries<bf16>);
  // Fewer queries than threads (decoding): the heads of a query are shared out as well.
  const int64_t groups = num_queries >= num_threads() ? 1 : std::min<int64_t>(num_heads, num_threads() / num_queries);
  if (groups > 1) {
    parallel_for(num_queries * groups, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t t = i / groups, group = i % groups;
        kernel(t, t + 1, num_heads * group / groups, num_heads * (group + 1) / groups, operands);
      }
    });
    return;
  }
  const auto bounds = partition_tiles(operands.ranges, operands.shape, num_threads());
  parallel_for(num_threads(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) kernel(bounds[part], bounds[part + 1], 0, num_heads, operands);
  });
}

// The rows that queries [begin, end) see, as one range of window rows and one of entries; zeroed in the slice.
void open_slice(const AttentionRanges& ranges, int64_t begin, int64_t end, int64_t num_window_rows, int64_t head_dim,
                AttentionSlice* slice) {
  const auto include = [](int64_t first, int64_t last, int64_t* low, int64_t* high) {
    if (first >= last) return;
    *low = *low == *high ? first : std::min(*low, first);
    *high = std::max(*high, last);
  };
  for (int64_t t = begin; t < end; ++t) {
    include(ranges.key_begin[t], ranges.key_end[t], &slice->key_begin, &slice->key_end);
    if (const int64_t count = ranges.num_entries(t); count > 0)
      include(ranges.entry_begin[t], ranges.entry_begin[t] + count, &slice->entry_begin, &slice->entry_end);
  }
  std::fill(slice->rows + slice->key_begin * head_dim, slice->rows + slice->key_end * head_dim, 0.0f);
  float* entries = slice->rows + num_window_rows * head_dim;
  std::fill(entries + slice->entry_begin * head_dim, entries + slice->entry_end * head_dim, 0.0f);
}

// to_r = sum over the slices that hold row r, in the order of the threads.
void sum_slices(const std::vector<AttentionSlice>& slices, int64_t AttentionSlice::*low, int64_t AttentionSlice::*high,
                int64_t first_row, const View& to) {
  const int64_t head_dim = to.dim(1);
  float* out = to.data<float>();
  parallel_for(to.dim(0), 16, [&](int64_t begin, int64_t end, int) {
    std::fill(out + begin * head_dim, out + end * head_dim, 0.0f);
    for (const AttentionSlice& slice : slices) {
      const int64_t first = std::max(begin, slice.*low), last = std::min(end, slice.*high);
      const float* from = slice.rows + first_row * head_dim;
      for (int64_t i = first * head_dim; i < last * head_dim; ++i) out[i] += from[i];
    }
  });
}

void attention_backward(Stream* stream, Out dq_TNH, Out dc_JH, Out dk_CH, InOut dsink_N, In do_TNH, In o_TNH, In lse_TN,
                        In q_TNH, In c_JH, In k_CH, In sink_N, KeyRanges ranges, double scale, Out workspace) {
  if (!has_kernel(q_TNH))
    return cpu_reference().ops.attention_backward(stream, dq_TNH, dc_JH, dk_CH, dsink_N, do_TNH, o_TNH, lse_TN, q_TNH,
                                                  c_JH, k_CH, sink_N, ranges, scale, workspace);
  const int64_t num_queries = q_TNH.dim(0), num_heads = q_TNH.dim(1), head_dim = q_TNH.dim(2);
  const int64_t num_window_rows = c_JH.dim(0), num_rows = num_window_rows + (k_CH.defined() ? k_CH.dim(0) : 0);
  CHECK(do_TNH.dtype == q_TNH.dtype && dq_TNH.dtype == q_TNH.dtype, do_TNH.to_string(), dq_TNH.to_string());
  CHECK(workspace.size() >= num_threads() * num_rows * head_dim, workspace.to_string(), num_rows);
  const AttentionBackward operands{.ranges = AttentionRanges(ranges, num_queries),
                                   .shape = TileShape(num_queries, num_heads, kBackwardRows),
                                   .q = q_TNH.raw(),
                                   .c = c_JH.raw(),
                                   .k = k_CH.defined() ? k_CH.raw() : nullptr,
                                   .o = o_TNH.raw(),
                                   .dout = do_TNH.raw(),
                                   .sink = sink_N.data<float>(),
                                   .lse = lse_TN.data<float>(),
                                   .dq = dq_TNH.raw(),
                                   .num_heads = num_heads,
                                   .head_dim = head_dim,
                                   .num_window_rows = num_window_rows,
                                   .scale = static_cast<float>(scale)};
  const auto kernel = q_TNH.dtype == DType::kF32 ? TEMPER_BEST_ISA(attention_backward_queries<float>)
                                                 : TEMPER_BEST_ISA(attention_backward_queries<bf16>);
  const int num_parts = num_threads();
  const auto bounds = partition_tiles(operands.ranges, operands.shape, num_parts);
  float* dsinks = call_floats(num_parts * num_heads);
  std::fill_n(dsinks, num_parts * num_heads, 0.0f);
  std::vector<AttentionSlice> slices(num_parts);
  parallel_for(num_parts, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      AttentionSlice& slice = slices[part];
      slice.rows = workspace.data<float>() + part * num_rows * head_dim;
      slice.dsink = dsinks + part * num_heads;
      open_slice(operands.ranges, bounds[part], bounds[part + 1], num_window_rows, head_dim, &slice);
      kernel(bounds[part], bounds[part + 1], operands, slice);
    }
  });
  sum_slices(slices, &AttentionSlice::key_begin, &AttentionSlice::key_end, 0, dc_JH);
  if (dk_CH.defined())
    sum_slices(slices, &AttentionSlice::entry_begin, &AttentionSlice::entry_end, num_window_rows, dk_CH);
  for (int part = 0; part < num_parts && dsink_N.defined(); ++part) {
    for (int64_t n = 0; n < num_heads; ++n) dsink_N.data<float>()[n] += dsinks[part * num_heads + n];
  }
}

}  // namespace

void register_attention(OpTable& ops) {
  ops.attention_forward = attention_forward;
  ops.attention_backward = attention_backward;
}

}  // namespace temper::backend
