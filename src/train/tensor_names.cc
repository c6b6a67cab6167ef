#include "train/tensor_names.h"

#include <fmt/format.h>

#include "train/host_copy.h"

namespace temper::train {

bool TensorNames::belongs(const std::string& name, int64_t layer) const {
  const bool in_layer = name.find("layers.") != std::string::npos, in_mtp = name.starts_with("mtp.");
  if (layer < 0) return !in_layer && !in_mtp;
  if (layer >= num_layers_) return in_mtp;
  return name.find(fmt::format("layers.{}.", layer)) != std::string::npos;
}

const Book::Entry* TensorNames::find(const View& view, int64_t layer) const {
  const char* begin = static_cast<const char*>(view.raw());
  const char* end = begin + span_elements(view) * dtype_bytes(view.dtype);
  const Book::Entry* best = nullptr;
  int best_score = -1;
  for (const Book::Entry& entry : book_.entries()) {
    // The entry's own extent: its View may have been narrowed since.
    const char* entry_begin = static_cast<const char*>(entry.view->base);
    if (!entry_begin) continue;
    entry_begin += entry.view->offset * dtype_bytes(entry.dtype);
    const char* entry_end = entry_begin + entry.shape.size() * dtype_bytes(entry.dtype);
    if (begin < entry_begin || end > entry_end) continue;
    const bool same_inner =
        view.rank() > 0 && entry.shape.rank() > 0 && entry.shape[entry.shape.rank() - 1] == view.dim(view.rank() - 1);
    const int score =
        8 * belongs(entry.name, layer) + 4 * (entry.dtype == view.dtype) + 2 * (begin == entry_begin) + same_inner;
    if (score > best_score) best = &entry, best_score = score;
  }
  return best;
}

std::string TensorNames::name(const View& view, int64_t layer) const {
  const Book::Entry* entry = find(view, layer);
  if (!entry) return "memory without a name";
  if (entry->kind == TensorKind::kGradient) return "gradient of " + entry->name;
  return entry->kind == TensorKind::kMaster ? "master of " + entry->name : entry->name;
}

}  // namespace temper::train
