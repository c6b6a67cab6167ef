// What one process writes of a run state.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/files.h"
#include "checkpoint/state_manifest.h"
#include "tensor/view.h"

namespace temper::checkpoint {

// Elements [begin, end) of a tensor.
struct StateTensor {
  // All of it.
  StateTensor(std::string name, DType dtype, Shape shape, const void* data)
      : StateTensor(std::move(name), dtype, shape, data, 0, shape.size()) {}
  StateTensor(std::string name, DType dtype, Shape shape, const void* data, int64_t begin, int64_t end)
      : name(std::move(name)), dtype(dtype), shape(shape), data(data), begin(begin), end(end) {}

  std::string name;
  DType dtype;
  Shape shape;       // of the whole tensor
  const void* data;  // of the elements: host memory, contiguous
  int64_t begin, end;
};

// What stands in the manifest of a file.
struct StatePart {
  StateFile file;                       // without a name: nothing was to be written
  std::vector<ManifestTensor> tensors;  // names may repeat; pieces without the number of their file
};

// Writes directory/tensors-<rank>.safetensors and syncs it, in one pass over the data. The directory must be there.
StatePart write_state_part(const std::vector<StateTensor>& tensors, const std::filesystem::path& directory,
                           int64_t rank, Files& files);

// Files and tensors of the manifest of a state that these processes wrote.
void join_parts(const std::vector<StatePart>& parts, StateManifest& manifest);

}  // namespace temper::checkpoint
