// The safetensors container.
//
//   bytes 0..7    N, length of the header in bytes: unsigned 64 bits, little-endian
//   bytes 8..8+N  JSON {name: {"dtype", "shape", "data_offsets": [begin, end)}, "__metadata__": {name: text}}, which
//   begins
//                 with '{' and may end with spaces
//   the rest      tensor data, row-major, little-endian; offsets count from byte 8+N, tensors touch and fill the file
//
// Version rule: the format has no version; an unknown dtype is refused. All failures are Error with file, tensor, what
// was found and what was expected.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace temper::checkpoint {

enum class FileDType : uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI8, kU8, kBool, kF8E4M3, kF8E8M0 };

int64_t file_dtype_bytes(FileDType dtype);
std::string_view file_dtype_name(FileDType dtype);  // as the header spells it: "F8_E4M3"

struct TensorInfo {
  std::string name;
  FileDType dtype = FileDType::kF32;
  std::vector<int64_t> shape;

  int64_t size() const;  // elements
  int64_t num_bytes() const { return size() * file_dtype_bytes(dtype); }
  std::string to_string() const;  // "BF16 [3, 4]"
};

// A tensor in a mapped file; data may be unaligned.
struct StoredTensor : TensorInfo {
  const std::byte* data = nullptr;
};

// Gives the memory of a tensor that has been read back to the system: its pages are read from the file again when they
// are touched again.
void release_pages(const StoredTensor& tensor);

// What a file holds; the tensors point into its bytes.
struct SafetensorsContents {
  std::vector<StoredTensor> tensors;  // in the order of their data
  std::map<std::string, std::string> metadata;
};

// Checks the bytes of a whole file; `origin` stands for the file in messages.
SafetensorsContents read_safetensors(std::span<const std::byte> bytes, const std::string& origin);

// A whole file, mapped and checked; the tensors point into the mapping and live as long as it.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return contents_.tensors; }  // in the order of their data
  const StoredTensor* find(std::string_view name) const;                          // nullptr if there is none
  const std::map<std::string, std::string>& metadata() const { return contents_.metadata; }
  int64_t offset_of(const StoredTensor& tensor) const { return tensor.data - file_.data(); }  // from the file's start

 private:
  std::filesystem::path path_;
  MappedFile file_;
  SafetensorsContents contents_;
};

// The bytes before the data of a file with these tensors, in this order: length and JSON, a multiple of 8. The tensors
// must be ordered by falling element size, so that each is aligned to its elements; names must differ.
std::string safetensors_header(const std::vector<TensorInfo>& tensors);

// Writes a file front to back without holding it: header first, then the data of every tensor in the given order.
// The tensors are ordered as in safetensors_header.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors);
  // The next bytes of the data section.
  void write(const void* data, int64_t num_bytes);
  // All bytes must have been written. Nothing is visible at path before.
  void commit();

 private:
  AtomicFileWriter writer_;
  int64_t remaining_bytes_ = 0;
};

}  // namespace temper::checkpoint
