#include "checkpoint/state_open.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "checkpoint/state_hash.h"

namespace temper::checkpoint {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;

// Reads bytes by chunks, each to where place(number of bytes before it) says, and returns their checksum.
template <class Place>
std::string read_hashed(const InputFile& file, int64_t offset, int64_t num_bytes, const Place& place) {
  StateHash hash;
  for (int64_t at = 0; at < num_bytes; at += kChunkBytes) {
    const int64_t count = std::min(kChunkBytes, num_bytes - at);
    char* to = place(at);
    file.read(to, count, offset + at);
    hash.add(to, count);
  }
  return hash.text();
}

std::string hash_of(const InputFile& file, int64_t offset, int64_t num_bytes) {
  std::vector<char> buffer(static_cast<size_t>(std::min(kChunkBytes, num_bytes)));
  return read_hashed(file, offset, num_bytes, [&](int64_t) { return buffer.data(); });
}

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

OpenedState::OpenedState(std::filesystem::path directory, Files& files, Readers readers)
    : directory_(std::move(directory)), files_(files), manifest_(read_manifest(directory_, files)) {
  for (size_t i = 0; i < manifest_.tensors.size(); ++i) by_name_.emplace(manifest_.tensors[i].name, i);
  int64_t number = 0;  // of a file, then of a piece
  const auto is_mine = [&] { return number++ % readers.size == readers.rank; };
  for (size_t i = 0; i < manifest_.files.size(); ++i)
    if (is_mine()) check_file(static_cast<int64_t>(i));
  for (const ManifestTensor& tensor : manifest_.tensors)
    for (const StatePiece& piece : tensor.pieces)
      if (is_mine()) check_piece(tensor, piece);
}

const InputFile& OpenedState::open(int64_t file) const {
  if (file_number_ != file) {
    file_ = files_.open_read(path_of(manifest_.files[static_cast<size_t>(file)]));
    file_number_ = file;
  }
  return *file_;
}

void OpenedState::check_file(int64_t number) const {
  const StateFile& file = manifest_.files[static_cast<size_t>(number)];
  const InputFile& input = open(number);
  if (input.size() != file.num_bytes)
    fail(ErrorCode::kCorrupt, "{}: {} bytes, the manifest says {}; it is truncated or not of this state", path_of(file),
         input.size(), file.num_bytes);
  if (hash_of(input, 0, file.header_bytes) != file.header_xxh3)
    fail(ErrorCode::kCorrupt, "{}: the header does not have the checksum that the manifest says", path_of(file));
}

void OpenedState::check_piece(const ManifestTensor& tensor, const StatePiece& piece) const {
  if (hash_of(open(piece.file), piece.offset, piece.count * dtype_bytes(tensor.dtype)) == piece.xxh3) return;
  fail(ErrorCode::kCorrupt, "{}: tensor {} does not have the checksum that the manifest says",
       path_of(manifest_.files[static_cast<size_t>(piece.file)]), tensor.name);
}

const ManifestTensor* OpenedState::find(std::string_view name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &manifest_.tensors[at->second];
}

void OpenedState::read(const ManifestTensor& tensor, int64_t begin, int64_t end, void* to) const {
  CHECK(0 <= begin && begin <= end && end <= tensor.shape.size(), tensor.name, begin, end);
  const int64_t element = dtype_bytes(tensor.dtype);
  auto piece = std::upper_bound(tensor.pieces.begin(), tensor.pieces.end(), begin,
                                [](int64_t at, const StatePiece& p) { return at < p.begin + p.count; });
  for (int64_t at = begin; at < end; ++piece) {
    const int64_t stop = std::min(end, piece->begin + piece->count);
    char* first = static_cast<char*>(to) + (at - begin) * element;
    const std::string hash = read_hashed(open(piece->file), piece->offset + (at - piece->begin) * element,
                                         (stop - at) * element, [&](int64_t bytes) { return first + bytes; });
    if (stop - at == piece->count && hash != piece->xxh3)
      fail(ErrorCode::kCorrupt, "{}: tensor {} has changed since the state was opened",
           path_of(manifest_.files[static_cast<size_t>(piece->file)]), tensor.name);
    at = stop;
  }
}

}  // namespace temper::checkpoint
