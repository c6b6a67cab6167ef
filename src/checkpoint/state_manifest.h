// manifest.json of a run state: what the state holds, and the checksums that prove it.
//
// A run state is a directory step-<8 digits> with two files: tensors-00000.safetensors (checkpoint/safetensors.h) and
// manifest.json, UTF-8:
//   format   "temper run state"
//   version  1
//   step     steps of the optimizer that the run has made, >= 0
//   score    held-out loss, lower is better; absent if there was none
//   facts    everything of the run that is not a tensor; an object, written and read by train/
//   file     {name, bytes: of the whole file, header_bytes: before the first tensor, header_xxh3: of those}
//   tensors  [{name, dtype, shape, bytes, xxh3}] in the order of their bytes, which follow one another without a gap
//   hash     the state's chain hash: the checksum of every byte of manifest.json before the bytes `,\n"hash": "`. The
//            checksums of all tensors are among these bytes, so it stands for the whole state. It is the last member;
//            after its digits the file ends with the bytes `"\n}\n`
// Checksums are XXH3, 128 bits, as 32 hexadecimal digits, the upper 64 bits first.
//
// Version rule: a reader refuses a version that it does not know; members that it does not know it passes over.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/view.h"

namespace temper::checkpoint {

inline constexpr std::string_view kStateFormat = "temper run state";
inline constexpr int64_t kStateVersion = 1;
inline constexpr const char* kManifestName = "manifest.json";
inline constexpr const char* kTensorFileName = "tensors-00000.safetensors";
inline constexpr int64_t kMaxManifestBytes = int64_t{1} << 28;

struct ManifestTensor {
  std::string name;
  DType dtype = DType::kNone;
  Shape shape;
  int64_t offset = 0;  // of its first byte in the file
  int64_t num_bytes = 0;
  std::string xxh3;
};

struct StateManifest {
  int64_t step = 0;
  std::optional<double> score;
  nlohmann::ordered_json facts = nlohmann::ordered_json::object();
  int64_t file_bytes = 0;
  int64_t header_bytes = 0;
  std::string header_xxh3;
  std::vector<ManifestTensor> tensors;
  std::string hash;
};

// The bytes of manifest.json; sets manifest.hash. Throws kInvalidArgument if a text in facts is not valid UTF-8.
std::string manifest_text(StateManifest& manifest);

// A function of the bytes alone. What it returns is sound: the hash is right, names differ, every tensor's bytes follow
// from dtype and shape and lie within file_bytes, in order, without gap or overlap. Throws kCorrupt, or kUnsupported
// for another version, naming origin and what is wrong.
StateManifest parse_manifest(std::string_view bytes, const std::string& origin);

// A manifest's bytes before its hash, and the hash and the end behind them.
std::string with_hash(std::string body);

}  // namespace temper::checkpoint
