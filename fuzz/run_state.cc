// The bytes are manifest.json of a run state: whole, or, if they begin with '{', without the hash, which is added. The
// pieces of an accepted manifest make up its tensors and fill its files, and it reads back equal from what we write.
#include <string>
#include <vector>

#include "checkpoint/state_manifest.h"
#include "fuzz.h"

namespace temper::checkpoint {
namespace {

void check(const std::string& text) {
  StateManifest manifest;
  if (!fuzz::accepts([&] { manifest = parse_manifest(text, "fuzz"); })) return;
  CHECK(manifest.step >= 0);
  std::vector<int64_t> used;  // bytes of each file
  for (const StateFile& file : manifest.files) used.push_back(file.header_bytes);
  for (const ManifestTensor& tensor : manifest.tensors) {
    int64_t end = 0;
    for (const StatePiece& piece : tensor.pieces) {
      CHECK(piece.begin == end && piece.count > 0, tensor.name);
      end += piece.count;
      const int64_t num_bytes = piece.count * dtype_bytes(tensor.dtype);
      const StateFile& file = manifest.files.at(static_cast<size_t>(piece.file));
      CHECK(piece.offset >= file.header_bytes && piece.offset + num_bytes <= file.num_bytes, tensor.name);
      used[static_cast<size_t>(piece.file)] += num_bytes;
    }
    CHECK(end == tensor.shape.size(), tensor.name);
  }
  for (size_t i = 0; i < used.size(); ++i) CHECK(used[i] == manifest.files[i].num_bytes, manifest.files[i].name);
  const std::string written = manifest_text(manifest);
  StateManifest again = parse_manifest(written, "written");
  CHECK(again.facts == manifest.facts && again.tensors.size() == manifest.tensors.size());
  CHECK(manifest_text(again) == written);
}

}  // namespace
}  // namespace temper::checkpoint

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(temper::fuzz::as_text(data, size));
  temper::checkpoint::check(text.starts_with('{') ? temper::checkpoint::with_hash(text) : text);
  return 0;
}
