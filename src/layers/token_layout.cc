#include "layers/token_layout.h"

#include <algorithm>

namespace temper::layers {

HostLayout make_layout(const std::vector<int32_t>& cu_seqlens, int64_t window, const std::vector<int64_t>& rates) {
  CHECK(!cu_seqlens.empty() && cu_seqlens.front() == 0);
  const int64_t T = cu_seqlens.back();
  HostLayout layout;
  layout.position_T.resize(T), layout.key_begin_T.resize(T), layout.key_end_T.resize(T);
  for (const int64_t rate : rates) {
    auto& entries = layout.entries.emplace_back();
    entries.rate = rate;
    entries.entry_begin_T.resize(T), entries.entry_count_T.resize(T);
  }
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    const int64_t begin = cu_seqlens[s], end = cu_seqlens[s + 1];
    CHECK(begin <= end, begin, end);
    for (int64_t t = begin; t < end; ++t) {
      layout.position_T[t] = static_cast<int32_t>(t - begin);
      layout.key_begin_T[t] = static_cast<int32_t>(std::max(begin, t - window + 1));
      layout.key_end_T[t] = static_cast<int32_t>(t + 1);
      layout.num_window_pairs += t + 1 - layout.key_begin_T[t];
    }
    for (auto& entries : layout.entries) {
      const int64_t rate = entries.rate, first_entry = static_cast<int64_t>(entries.row_C.size());
      for (int64_t t = begin; t < end; ++t) {
        entries.entry_begin_T[t] = static_cast<int32_t>(first_entry);
        entries.entry_count_T[t] = static_cast<int32_t>((t - begin + 1) / rate);
      }
      const int64_t count = (end - begin) / rate;
      for (int64_t w = 0; w < count; ++w) {
        entries.row_C.push_back(static_cast<int32_t>(begin + w * rate));
        entries.prev_row_C.push_back(w == 0 ? -1 : static_cast<int32_t>(begin + (w - 1) * rate));
        entries.position_C.push_back(static_cast<int32_t>(w * rate));
      }
      entries.max_count = std::max(entries.max_count, count);
    }
  }
  layout.cut.begin_R = {0, T};
  layout.history_R = {0};
  for (auto& entries : layout.entries) {
    entries.count_R = {static_cast<int64_t>(entries.row_C.size())};
    entries.history_R = entries.current_history_R = {0};
  }
  return layout;
}

RowCut even_cut(int64_t num_rows, int64_t rank, int64_t size) {
  RowCut cut{rank, {}};
  for (int64_t r = 0; r <= size; ++r) cut.begin_R.push_back(num_rows * r / size);
  return cut;
}

namespace {

// Those of the rows, less begin.
std::vector<int32_t> cut_rows(const std::vector<int32_t>& values_T, int64_t begin, int64_t end, int64_t less = 0) {
  std::vector<int32_t> out(values_T.begin() + begin, values_T.begin() + end);
  for (int32_t& value : out) value -= static_cast<int32_t>(less);
  return out;
}

EntryLayout cut_entries(const EntryLayout& whole, const RowCut& cut) {
  EntryLayout part;
  part.rate = whole.rate, part.max_count = whole.max_count;
  part.entry_begin_T = cut_rows(whole.entry_begin_T, cut.begin(), cut.end());
  part.entry_count_T = cut_rows(whole.entry_count_T, cut.begin(), cut.end());
  int64_t first = 0, end = 0;  // entries of the rank
  for (int64_t r = 0; r < cut.size(); ++r, first = end) {
    const int64_t begin_row = cut.begin_R[r], end_row = cut.begin_R[r + 1];
    const auto num_entries = static_cast<int64_t>(whole.row_C.size());
    while (end < num_entries && whole.row_C[end] + whole.rate <= end_row) ++end;
    part.count_R.push_back(end - first);
    // The first one reaches back farthest: later windows begin behind it, and have it, if any, as their previous one.
    const int64_t current = first < end ? whole.row_C[first] : begin_row;
    const int64_t previous = first < end && whole.prev_row_C[first] >= 0 ? whole.prev_row_C[first] : current;
    part.current_history_R.push_back(std::max<int64_t>(0, begin_row - current));
    part.history_R.push_back(std::max<int64_t>(0, begin_row - previous));
    if (r != cut.rank) continue;
    const int64_t origin = begin_row - part.history_R[r];
    part.row_C = cut_rows(whole.row_C, first, end, origin);
    part.position_C = cut_rows(whole.position_C, first, end);
    for (int64_t e = first; e < end; ++e)
      part.prev_row_C.push_back(whole.prev_row_C[e] < 0 ? -1 : static_cast<int32_t>(whole.prev_row_C[e] - origin));
  }
  return part;
}

}  // namespace

HostLayout cut_layout(HostLayout whole, const RowCut& cut) {
  CHECK(cut.begin_R.back() == static_cast<int64_t>(whole.position_T.size()), cut.begin_R.back());
  if (cut.size() == 1) return whole;
  HostLayout part;
  part.cut = cut;
  for (int64_t r = 0; r < cut.size(); ++r) {
    const int64_t begin = cut.begin_R[r];
    part.history_R.push_back(begin < cut.begin_R[r + 1] ? begin - whole.key_begin_T[begin] : 0);
  }
  const int64_t begin = cut.begin(), end = cut.end(), origin = begin - part.history_R[cut.rank];
  part.position_T = cut_rows(whole.position_T, begin, end);
  part.key_begin_T = cut_rows(whole.key_begin_T, begin, end, origin);
  part.key_end_T = cut_rows(whole.key_end_T, begin, end, origin);
  for (int64_t t = 0; t < end - begin; ++t) part.num_window_pairs += part.key_end_T[t] - part.key_begin_T[t];
  for (const EntryLayout& entries : whole.entries) part.entries.push_back(cut_entries(entries, cut));
  return part;
}

double count_entry_pairs(const EntryLayout& entries, int64_t limit) {
  double pairs = 0;
  for (const int32_t count : entries.entry_count_T) pairs += std::min<int64_t>(count, limit);
  return pairs;
}

void DeviceLayout::declare(Book& book, const RowCapacity& capacity, const std::vector<int64_t>& rates) {
  const int64_t max_tokens = capacity.max_rows;
  const auto declare = [&](View& view, const std::string& what, int64_t count) {
    book.declare(&view, TensorKind::kInput, "layout:" + what, DType::kI32, {count});
  };
  declare(full_token_, "token", max_tokens);
  declare(full_position_, "position", max_tokens);
  declare(full_key_begin_, "key_begin", max_tokens);
  declare(full_key_end_, "key_end", max_tokens);
  for (const int64_t rate : rates) {
    auto& entries = full_entries_[rate];
    entries.rate = rate;
    const std::string suffix = "/" + std::to_string(rate);
    const int64_t C = capacity.own_entries(rate);
    declare(entries.row_C, "row" + suffix, C);
    declare(entries.prev_row_C, "prev_row" + suffix, C);
    declare(entries.position_C, "entry_position" + suffix, C);
    declare(entries.entry_begin_T, "entry_begin" + suffix, max_tokens);
    declare(entries.entry_count_T, "entry_count" + suffix, max_tokens);
  }
}

void DeviceLayout::upload(const backend::DeviceTable& device, backend::Stream* stream, const MicroBatch& batch,
                          const HostLayout& layout) {
  const int64_t T = layout.cut.num_rows();
  CHECK(layout.cut.begin_R.back() == static_cast<int64_t>(batch.tokens.size()), batch.tokens.size());
  CHECK(T <= full_token_.dim(0), T, full_token_.dim(0));
  num_tokens_ = T;
  host_ = layout;
  const auto fill = [&](View full, const std::vector<int32_t>& values) {
    const View view = full.first(static_cast<int64_t>(values.size()));
    if (!values.empty()) device.copy_to_device(stream, view, values.data());
    return view;
  };
  token_T = fill(full_token_, cut_rows(batch.tokens, layout.cut.begin(), layout.cut.end()));
  position_T = fill(full_position_, layout.position_T);
  key_begin_T = fill(full_key_begin_, layout.key_begin_T);
  key_end_T = fill(full_key_end_, layout.key_end_T);
  for (const auto& host : layout.entries) {
    const auto& full = full_entries_.at(host.rate);
    auto& entries = entries_[host.rate];
    entries.rate = host.rate;
    entries.max_count = host.max_count;
    entries.num_entries = host.num_entries();
    entries.count_R = host.count_R;
    entries.history_R = host.history_R, entries.current_history_R = host.current_history_R;
    entries.row_C = fill(full.row_C, host.row_C);
    entries.prev_row_C = fill(full.prev_row_C, host.prev_row_C);
    entries.position_C = fill(full.position_C, host.position_C);
    entries.entry_begin_T = fill(full.entry_begin_T, host.entry_begin_T);
    entries.entry_count_T = fill(full.entry_count_T, host.entry_count_T);
  }
}

const DeviceEntries& DeviceLayout::entries(int64_t rate) const { return entries_.at(rate); }

}  // namespace temper::layers
