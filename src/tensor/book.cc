#include "tensor/book.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace temper {
namespace {

constexpr int64_t kMaxRegionBytes = int64_t{1} << 56;  // all kinds together then fit in 63 bits

// Where a region ends after a tensor that begins at `begin`. Sizes come from files and run files: a product of them may
// exceed every number.
int64_t end_of(const std::string& name, const Shape& shape, DType dtype, int64_t begin) {
  int64_t num_bytes = dtype_bytes(dtype), end = 0;
  bool is_too_large = false;
  for (int i = 0; i < shape.rank(); ++i) is_too_large |= __builtin_mul_overflow(num_bytes, shape[i], &num_bytes);
  is_too_large |= __builtin_add_overflow(begin, num_bytes, &end) || end > kMaxRegionBytes;
  if (is_too_large)
    fail(ErrorCode::kOutOfMemory, "tensor {} {} {} exceeds every memory", name, dtype_name(dtype), shape.to_string());
  return (end + Book::kAlignment - 1) / Book::kAlignment * Book::kAlignment;
}

}  // namespace

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
  for (int i = 0; i < shape.rank(); ++i) CHECK(shape[i] >= 0, name, shape.to_string());
  CHECK(dtype != DType::kNone, name);
  const int64_t offset_bytes = cursor_bytes_[k];
  cursor_bytes_[k] = end_of(name, shape, dtype, offset_bytes);
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
  for (int k = 0; k < kNumTensorKinds; ++k) total += region_bytes(static_cast<TensorKind>(k));
  return total;
}

void Book::grant(TensorKind kind, void* base) {
  bases_[static_cast<int>(kind)] = base;
  select(kind, 0);
}

void Book::select(TensorKind kind, int64_t copy) const {
  const int k = static_cast<int>(kind);
  CHECK(copy >= 0 && copy < copies_[k], copy, copies_[k]);
  for (const auto& entry : entries_)
    if (entry.kind == kind) entry.view->base = static_cast<char*>(bases_[k]) + copy * high_bytes_[k];
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
    out += fmt::format("{:<20} {:>12} {:>8}   {} {}{}\n", tensor_kind_name(kind), format_bytes(region_bytes(kind)),
                       count, largest->name, dtype_name(largest->dtype), largest->shape.to_string());
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
