// manifest.json of a run state: what the state holds, and the checksums that prove it.
//
// A run state is a directory step-<8 digits> with a file tensors-<5 digits>.safetensors (checkpoint/safetensors.h) of
// each process that had something to write, by its rank, and manifest.json, UTF-8:
//   format   "temper run state"
//   version  2
//   step     steps of the optimizer that the run has made, >= 0
//   score    held-out loss, lower is better; absent if there was none
//   facts    everything of the run that is not a tensor; an object, written and read by train/
//   files    [{name, bytes: of the whole file, header_bytes: before the first tensor, header_xxh3: of those}], by name
//   tensors  [{name, dtype, shape: of the whole tensor, pieces}]
//   pieces   [{begin, count, file, at, xxh3}]: elements [begin, begin + count) of the tensor, in memory order, are in
//            files[file] from byte `at` on. Ascending; every element of a tensor, and every byte of a file behind its
//            header, is in exactly one piece
//   hash     the state's chain hash: the checksum of every byte of manifest.json before the bytes `,\n"hash": "`. The
//            checksums of all pieces are among these bytes, so it stands for the whole state. It is the last member;
//            after its digits the file ends with the bytes `"\n}\n`
// Checksums are XXH3, 128 bits, as 32 hexadecimal digits, the upper 64 bits first.
//
// In its file a piece that is a whole tensor has the tensor's name and shape, another one is called NAME[begin:end] and
// has one dim. Readers go by the manifest.
//
// Version rule: a reader refuses a version that it does not know; members that it does not know it passes over.
// Version 1, which had one file and no pieces, is not read any more.
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
inline constexpr int64_t kStateVersion = 2;
inline constexpr const char* kManifestName = "manifest.json";
inline constexpr int64_t kMaxManifestBytes = int64_t{1} << 28;

struct StateFile {
  std::string name;
  int64_t num_bytes = 0, header_bytes = 0;
  std::string header_xxh3;
};

// Elements [begin, begin + count) of a tensor.
struct StatePiece {
  int64_t begin = 0, count = 0;
  int64_t file = 0, offset = 0;  // where its bytes are
  std::string xxh3;
};

struct ManifestTensor {
  std::string name;
  DType dtype = DType::kNone;
  Shape shape;
  std::vector<StatePiece> pieces;

  int64_t num_bytes() const { return shape.size() * dtype_bytes(dtype); }
};

struct StateManifest {
  int64_t step = 0;
  std::optional<double> score;
  nlohmann::ordered_json facts = nlohmann::ordered_json::object();
  std::vector<StateFile> files;
  std::vector<ManifestTensor> tensors;
  std::string hash;

  int64_t num_bytes() const;  // of all files but manifest.json
};

// tensors-<5 digits>.safetensors
std::string tensor_file_name(int64_t rank);

// The bytes of manifest.json; sets manifest.hash. Throws kInvalidArgument if a text in facts is not valid UTF-8.
std::string manifest_text(StateManifest& manifest);

// A function of the bytes alone. What it returns is sound: the hash is right; names of tensors differ; every element of
// every tensor is in one piece, in order; the pieces of a file lie behind one another and fill it. Throws kCorrupt, or
// kUnsupported for another version, naming origin and what is wrong.
StateManifest parse_manifest(std::string_view bytes, const std::string& origin);

// A manifest's bytes before its hash, and the hash and the end behind them.
std::string with_hash(std::string body);

}  // namespace temper::checkpoint
