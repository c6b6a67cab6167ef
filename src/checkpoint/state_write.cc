#include "checkpoint/state_write.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "checkpoint/convert.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/state_hash.h"

namespace temper::checkpoint {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;  // stays in the cache between the checksum and the write

TensorInfo info_of(const StateTensor& tensor) {
  const bool is_whole = tensor.begin == 0 && tensor.end == tensor.shape.size();
  TensorInfo info{tensor.name, file_dtype(tensor.dtype), {}};
  if (is_whole) {
    for (int i = 0; i < tensor.shape.rank(); ++i) info.shape.push_back(tensor.shape[i]);
  } else {
    info.name += fmt::format("[{}:{}]", tensor.begin, tensor.end);
    info.shape = {tensor.end - tensor.begin};
  }
  return info;
}

// Writes bytes and returns their checksum.
std::string write_hashed(OutputFile& file, const void* bytes, int64_t num_bytes) {
  const auto* data = static_cast<const char*>(bytes);
  StateHash hash;
  for (int64_t at = 0; at < num_bytes; at += kChunkBytes) {
    const int64_t count = std::min(kChunkBytes, num_bytes - at);
    hash.add(data + at, count);
    file.write(data + at, count);
  }
  return hash.text();
}

}  // namespace

StatePart write_state_part(const std::vector<StateTensor>& tensors, const std::filesystem::path& directory,
                           int64_t rank, Files& files) {
  StatePart part;
  std::vector<const StateTensor*> written;
  for (const StateTensor& tensor : tensors) {
    if (tensor.begin < tensor.end) written.push_back(&tensor);
    if (tensor.shape.size() == 0) part.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, {}});
  }
  if (written.empty()) return part;
  std::stable_sort(written.begin(), written.end(), [](const StateTensor* a, const StateTensor* b) {
    return dtype_bytes(a->dtype) > dtype_bytes(b->dtype);  // as the container wants them
  });
  std::vector<TensorInfo> infos;
  for (const StateTensor* tensor : written) infos.push_back(info_of(*tensor));
  const std::string header = safetensors_header(infos);
  part.file.name = tensor_file_name(rank);
  const auto file = files.create(directory / part.file.name);
  part.file.header_bytes = part.file.num_bytes = static_cast<int64_t>(header.size());
  part.file.header_xxh3 = write_hashed(*file, header.data(), part.file.header_bytes);
  for (const StateTensor* tensor : written) {
    const int64_t count = tensor->end - tensor->begin, num_bytes = count * dtype_bytes(tensor->dtype);
    const std::string xxh3 = write_hashed(*file, tensor->data, num_bytes);
    part.tensors.push_back(
        {tensor->name, tensor->dtype, tensor->shape, {{tensor->begin, count, 0, part.file.num_bytes, xxh3}}});
    part.file.num_bytes += num_bytes;
  }
  file->sync();
  file->release_cache();
  return part;
}

void join_parts(const std::vector<StatePart>& parts, StateManifest& manifest) {
  std::unordered_map<std::string_view, size_t> known;  // where a name is in the manifest
  for (const StatePart& part : parts) {
    const auto file = static_cast<int64_t>(manifest.files.size());
    if (!part.file.name.empty()) manifest.files.push_back(part.file);
    for (const ManifestTensor& tensor : part.tensors) {
      const auto [at, is_new] = known.emplace(tensor.name, manifest.tensors.size());
      if (is_new) manifest.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, {}});
      for (const StatePiece& piece : tensor.pieces) {
        manifest.tensors[at->second].pieces.push_back(piece);
        manifest.tensors[at->second].pieces.back().file = file;
      }
    }
  }
  for (ManifestTensor& tensor : manifest.tensors)
    std::sort(tensor.pieces.begin(), tensor.pieces.end(),
              [](const StatePiece& a, const StatePiece& b) { return a.begin < b.begin; });
}

}  // namespace temper::checkpoint
