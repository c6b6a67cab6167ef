#include "checkpoint/state_open.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/state_hash.h"

namespace temper::checkpoint {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;

}  // namespace

StateManifest read_manifest(const std::filesystem::path& state_directory, Files& files) {
  const auto path = state_directory / kManifestName;
  const auto file = files.open_read(path);
  if (file->size() > kMaxManifestBytes)
    fail(ErrorCode::kCorrupt, "{}: {} bytes, a manifest has at most {}", path.string(), file->size(),
         kMaxManifestBytes);
  std::string text(static_cast<size_t>(file->size()), '\0');
  file->read(text.data(), file->size(), 0);
  return parse_manifest(text, path.string());
}

OpenedState::OpenedState(const std::filesystem::path& directory, Files& files)
    : path_(directory / kTensorFileName), manifest_(read_manifest(directory, files)), file_(files.open_read(path_)) {
  if (file_->size() != manifest_.file_bytes)
    fail(ErrorCode::kCorrupt, "{}: {} bytes, the manifest says {}; it is truncated or not of this state",
         path_.string(), file_->size(), manifest_.file_bytes);
  std::vector<char> buffer(static_cast<size_t>(kChunkBytes));
  const auto hash_of = [&](int64_t begin, int64_t num_bytes) {
    StateHash hash;
    for (int64_t at = 0; at < num_bytes; at += kChunkBytes) {
      const int64_t count = std::min(kChunkBytes, num_bytes - at);
      file_->read(buffer.data(), count, begin + at);
      hash.add(buffer.data(), count);
    }
    return hash.text();
  };
  if (hash_of(0, manifest_.header_bytes) != manifest_.header_xxh3)
    fail(ErrorCode::kCorrupt, "{}: the header does not have the checksum that the manifest says", path_.string());
  for (size_t i = 0; i < manifest_.tensors.size(); ++i) {
    const ManifestTensor& tensor = manifest_.tensors[i];
    by_name_.emplace(tensor.name, i);
    if (hash_of(tensor.offset, tensor.num_bytes) != tensor.xxh3)
      fail(ErrorCode::kCorrupt, "{}: tensor {} does not have the checksum that the manifest says", path_.string(),
           tensor.name);
  }
}

const ManifestTensor* OpenedState::find(std::string_view name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &manifest_.tensors[at->second];
}

void OpenedState::read(const ManifestTensor& tensor, void* to) const {
  StateHash hash;
  for (int64_t at = 0; at < tensor.num_bytes; at += kChunkBytes) {
    const int64_t count = std::min(kChunkBytes, tensor.num_bytes - at);
    file_->read(static_cast<char*>(to) + at, count, tensor.offset + at);
    hash.add(static_cast<char*>(to) + at, count);
  }
  if (hash.text() != tensor.xxh3)
    fail(ErrorCode::kCorrupt, "{}: tensor {} has changed since the state was opened", path_.string(), tensor.name);
}

}  // namespace temper::checkpoint
