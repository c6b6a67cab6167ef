#include "rollout/cache.h"

#include <algorithm>

namespace temper::rollout {
namespace {

void declare_compressor(Book& book, CompressorCache& cache, const layers::CompressorDims& dims, const CacheShape& shape,
                        DType act, DType acc) {
  const Shape projections{shape.max_sequences * 2 * dims.rate, dims.Z()};
  book.declare(&cache.z_SZ, TensorKind::kSaved, "cache:z", acc, projections);
  book.declare(&cache.g_SZ, TensorKind::kSaved, "cache:g", acc, projections);
  book.declare(&cache.k_CH, TensorKind::kSaved, "cache:entries", act,
               {shape.max_sequences * shape.max_entries(dims.rate), dims.H});
}

}  // namespace

void declare_cache(Book& book, LayerCache& cache, const layers::Attention& attention, const CacheShape& shape,
                   DType act, DType acc) {
  book.declare(&cache.c_SH, TensorKind::kSaved, "cache:latents", act,
               {shape.max_sequences * shape.window, attention.dims().H});
  if (attention.compressor()) declare_compressor(book, cache.entries, attention.compressor()->dims(), shape, act, acc);
  if (attention.indexer())
    declare_compressor(book, cache.indexer, attention.indexer()->compressor().dims(), shape, act, acc);
}

StepRows make_step_rows(const std::vector<SlotToken>& tokens, const CacheShape& shape) {
  StepRows rows;
  for (const auto& [slot, token, position] : tokens) {
    const int64_t begin = slot * shape.window;
    rows.token_T.push_back(token);
    rows.position_T.push_back(position);
    rows.key_begin_T.push_back(static_cast<int32_t>(begin));
    rows.key_end_T.push_back(static_cast<int32_t>(begin + std::min<int64_t>(position + 1, shape.window)));
    rows.ring_row_T.push_back(static_cast<int32_t>(begin + position % shape.window));
  }
  return rows;
}

StepEntries make_step_entries(const std::vector<SlotToken>& tokens, const CacheShape& shape, int64_t rate) {
  StepEntries step;
  for (const auto& [slot, token, position] : tokens) {
    const int64_t first_entry = slot * shape.max_entries(rate), base = slot * 2 * rate;
    const int64_t window = position / rate;
    const auto row = [&](int64_t w) { return static_cast<int32_t>(base + w % 2 * rate); };
    step.entry_begin_T.push_back(static_cast<int32_t>(first_entry));
    step.entry_count_T.push_back(static_cast<int32_t>((position + 1) / rate));
    step.projection_row_T.push_back(row(window) + static_cast<int32_t>(position % rate));
    if ((position + 1) % rate != 0) continue;
    step.row_C.push_back(row(window));
    step.prev_row_C.push_back(window == 0 ? -1 : row(window - 1));
    step.position_C.push_back(static_cast<int32_t>(window * rate));
    step.entry_row_C.push_back(static_cast<int32_t>(first_entry + window));
  }
  return step;
}

}  // namespace temper::rollout
