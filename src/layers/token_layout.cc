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
  return layout;
}

double count_entry_pairs(const EntryLayout& entries, int64_t limit) {
  double pairs = 0;
  for (const int32_t count : entries.entry_count_T) pairs += std::min<int64_t>(count, limit);
  return pairs;
}

void DeviceLayout::declare(Book& book, int64_t max_tokens, const std::vector<int64_t>& rates) {
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
    const int64_t C = max_tokens / rate;
    declare(entries.row_C, "row" + suffix, C);
    declare(entries.prev_row_C, "prev_row" + suffix, C);
    declare(entries.position_C, "entry_position" + suffix, C);
    declare(entries.entry_begin_T, "entry_begin" + suffix, max_tokens);
    declare(entries.entry_count_T, "entry_count" + suffix, max_tokens);
  }
}

void DeviceLayout::upload(const backend::DeviceTable& device, backend::Stream* stream, const MicroBatch& batch,
                          const HostLayout& layout) {
  const int64_t T = static_cast<int64_t>(batch.tokens.size());
  CHECK(T <= full_token_.dim(0), T, full_token_.dim(0));
  num_tokens_ = T;
  host_ = layout;
  const auto fill = [&](View full, const std::vector<int32_t>& values) {
    const View view = full.first(static_cast<int64_t>(values.size()));
    if (!values.empty()) device.copy_to_device(stream, view, values.data());
    return view;
  };
  token_T = fill(full_token_, batch.tokens);
  position_T = fill(full_position_, layout.position_T);
  key_begin_T = fill(full_key_begin_, layout.key_begin_T);
  key_end_T = fill(full_key_end_, layout.key_end_T);
  for (const auto& host : layout.entries) {
    const auto& full = full_entries_.at(host.rate);
    auto& entries = entries_[host.rate];
    entries.rate = host.rate;
    entries.max_count = host.max_count;
    entries.num_entries = static_cast<int64_t>(host.row_C.size());
    entries.row_C = fill(full.row_C, host.row_C);
    entries.prev_row_C = fill(full.prev_row_C, host.prev_row_C);
    entries.position_C = fill(full.position_C, host.position_C);
    entries.entry_begin_T = fill(full.entry_begin_T, host.entry_begin_T);
    entries.entry_count_T = fill(full.entry_count_T, host.entry_count_T);
  }
}

const DeviceEntries& DeviceLayout::entries(int64_t rate) const { return entries_.at(rate); }

}  // namespace temper::layers
