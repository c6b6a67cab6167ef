// The Book: every tensor of a run, declared before any memory exists.
//
// A room declares its tensors by name, kind, dtype and shape, and hands the Book the address of a View. Later grant()
// binds all those Views to memory in one sweep. The planner prints the Book, the run allocates from it: both see the
// same bytes. Nothing is allocated inside a step.
//
// Kinds have separate regions. A region grows with each declaration; between mark() and rewind() a stretch of a region
// can be shared by tensors that are never alive together (the scratch of two layers, the saved tensors of two
// recomputed blocks). A region's size is its high mark. Every tensor starts at a multiple of kAlignment bytes.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "tensor/view.h"

namespace temper {

enum class TensorKind : uint8_t {
  kParameter,  // compute copy of the weights
  kMaster,     // fp32 weights where the compute copy is narrower
  kGradient,   // parameter gradients, accumulated over a step
  kMoment,     // optimizer state
  kSaved,      // what backward needs from forward
  kScratch,    // dies with the call
  kInput,      // token ids, positions, ranges of a micro-batch
  kTable,      // constants such as rotary angles
  kStaging,    // copy of the run's state while it is being written to disk
};
inline constexpr int kNumTensorKinds = 9;
const char* tensor_kind_name(TensorKind kind);

class Book {
 public:
  Book() { copies_.fill(1); }
  static constexpr int64_t kAlignment = 256;

  struct Entry {
    std::string name;
    TensorKind kind;
    DType dtype;
    Shape shape;
    int64_t offset_bytes;  // within the kind's region
    View* view;            // bound by grant(); must outlive the Book
  };

  void declare(View* view, TensorKind kind, std::string name, DType dtype, Shape shape);

  // Position in a kind's region; rewind(mark) lets the next declarations share what came after it.
  int64_t mark(TensorKind kind) const { return cursor_bytes_[static_cast<int>(kind)]; }
  void rewind(TensorKind kind, int64_t mark);
  // Ends the sharing: later declarations come after everything declared so far.
  void seal(TensorKind kind) { cursor_bytes_[static_cast<int>(kind)] = high_bytes_[static_cast<int>(kind)]; }

  // So many copies of a kind's region, one after the other: sets of tensors that are alive at the same time.
  void replicate(TensorKind kind, int64_t count) { copies_[static_cast<int>(kind)] = count; }
  // After grant(), which binds the first: binds the kind's Views to a copy.
  void select(TensorKind kind, int64_t copy) const;

  int64_t region_bytes(TensorKind kind) const {
    return high_bytes_[static_cast<int>(kind)] * copies_[static_cast<int>(kind)];
  }
  int64_t total_bytes() const;
  const std::vector<Entry>& entries() const { return entries_; }

  // Binds every declared View of a kind to base + offset.
  void grant(TensorKind kind, void* base);

  // A table a person can read: one line per kind with bytes and the largest tensors.
  std::string table() const;

 private:
  std::vector<Entry> entries_;
  std::array<int64_t, kNumTensorKinds> cursor_bytes_{}, high_bytes_{}, copies_;
  std::array<void*, kNumTensorKinds> bases_{};
};

// Shares scratch between siblings: what is declared while a ScratchScope lives is overlaid by what is declared after
// it.
class ScratchScope {
 public:
  explicit ScratchScope(Book& book) : book_(book), mark_(book.mark(TensorKind::kScratch)) {}
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;
  ~ScratchScope() { book_.rewind(TensorKind::kScratch, mark_); }

 private:
  Book& book_;
  int64_t mark_;
};

std::string format_bytes(int64_t num_bytes);  // "1.50 GiB"

}  // namespace temper
