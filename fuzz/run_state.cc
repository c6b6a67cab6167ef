// The bytes are manifest.json of a run state: whole, or, if they begin with '{', without the hash, which is added. The
// tensors of an accepted manifest lie in its file one after the other, and it reads back equal from what we write.
#include <string>

#include "checkpoint/state_manifest.h"
#include "fuzz.h"

namespace temper::checkpoint {
namespace {

void check(const std::string& text) {
  StateManifest manifest;
  if (!fuzz::accepts([&] { manifest = parse_manifest(text, "fuzz"); })) return;
  CHECK(manifest.step >= 0 && manifest.header_bytes >= 0);
  int64_t end = manifest.header_bytes;
  for (const ManifestTensor& tensor : manifest.tensors) {
    CHECK(tensor.offset == end && tensor.num_bytes >= 0, tensor.name);
    CHECK(tensor.num_bytes == tensor.shape.size() * dtype_bytes(tensor.dtype), tensor.name);
    end += tensor.num_bytes;
  }
  CHECK(end == manifest.file_bytes, end, manifest.file_bytes);
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
