#include "tensor/book.h"

#include <fmt/format.h>

#include <algorithm>

namespace temper {

const char* tensor_kind_name(TensorKind kind) {
  switch (kind) {
    case TensorKind::kParameter:
      return "parameters";
    case TensorKind::kMaster:
      return "master weights";
    case TensorKind::kGradient:
      return "gradients";
    case TensorKind::kMoment:
      return "optimizer moments";
    case TensorKind::kSaved:
      return "saved activations";
    case TensorKind::kScratch:
      return "scratch";
    case TensorKind::kInput:
      return "inputs";
    case TensorKind::kTable:
      return "tables";
    case TensorKind::kStaging:
      return "staging of states";
  }
  return "unknown";
}

void Book::declare(View* view, TensorKind kind, std::string name, DType dtype, Shape shape) {
  const int k = static_cast<int>(kind);
  CHECK(shape.size() >= 0 && dtype != DType::kNone, name, shape.to_string());
  const int64_t offset_bytes = cursor_bytes_[k];
  const int64_t num_bytes = shape.size() * dtype_bytes(dtype);
  cursor_bytes_[k] = offset_bytes + (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
  high_bytes_[k] = std::max(high_bytes_[k], cursor_bytes_[k]);
  *view = View(nullptr, dtype, shape, offset_bytes / dtype_bytes(dtype));
  entries_.push_back({std::move(name), kind, dtype, shape, offset_bytes, view});
}

void Book::rewind(TensorKind kind, int64_t mark) {
  const int k = static_cast<int>(kind);
  CHECK(mark >= 0 && mark <= cursor_bytes_[k], mark, cursor_bytes_[k]);
  cursor_bytes_[k] = mark;
}

int64_t Book::total_bytes() const {
  int64_t total = 0;
  for (int64_t bytes : high_bytes_) total += bytes;
  return total;
}

void Book::grant(TensorKind kind, void* base) {
  for (auto& entry : entries_)
    if (entry.kind == kind) entry.view->base = base;
}

std::string Book::table() const {
  std::string out = fmt::format("{:<20} {:>12} {:>8}   largest\n", "memory", "size", "tensors");
  for (int k = 0; k < kNumTensorKinds; ++k) {
    if (high_bytes_[k] == 0) continue;
    const auto kind = static_cast<TensorKind>(k);
    int64_t count = 0;
    const Entry* largest = nullptr;
    for (const auto& entry : entries_) {
      if (entry.kind != kind) continue;
      ++count;
      if (!largest || entry.view->num_bytes() > largest->view->num_bytes()) largest = &entry;
    }
    out += fmt::format("{:<20} {:>12} {:>8}   {} {}{}\n", tensor_kind_name(kind), format_bytes(high_bytes_[k]), count,
                       largest->name, dtype_name(largest->dtype), largest->shape.to_string());
  }
  return out + fmt::format("{:<20} {:>12}\n", "total", format_bytes(total_bytes()));
}

std::string format_bytes(int64_t num_bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(num_bytes);
  int unit = 0;
  while (value >= 1024 && unit < 5) value /= 1024, ++unit;
  return unit == 0 ? fmt::format("{} B", num_bytes) : fmt::format("{:.2f} {}", value, units[unit]);
}

}  // namespace temper
