#include "checkpoint/state_manifest.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/convert.h"
#include "checkpoint/state_hash.h"

namespace temper::checkpoint {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kHashBegin = ",\n\"hash\": \"";
constexpr std::string_view kHashEnd = "\"\n}\n";
constexpr size_t kHashDigits = 32;
constexpr size_t kTailBytes = kHashBegin.size() + kHashDigits + kHashEnd.size();

// The dtypes of memory; their names in files are those of the safetensors container.
constexpr DType kDTypes[] = {DType::kF64, DType::kF32, DType::kBF16, DType::kI32, DType::kI64};

std::string text_of(const ordered_json& value) {
  try {
    return value.dump();
  } catch (const ordered_json::exception& error) {
    fail(ErrorCode::kInvalidArgument, "the run state cannot be written as JSON: {}", error.what());
  }
}

// Reads members with messages that say where they stand.
struct Members {
  const ordered_json& object;
  std::string where;

  [[noreturn]] void bad(std::string_view name, std::string_view expected) const {
    const auto at = object.is_object() ? object.find(name) : object.end();
    fail(ErrorCode::kCorrupt, "{}: {} must be {}, found {}", where, name, expected,
         at == object.end() ? "nothing" : describe_json(*at));
  }

  const ordered_json& get(std::string_view name, std::string_view expected) const {
    if (!object.is_object()) bad(name, expected);
    const auto at = object.find(name);
    if (at == object.end()) bad(name, expected);
    return *at;
  }

  int64_t count(std::string_view name) const {
    const ordered_json& value = get(name, "a count");
    if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{1} << 62) bad(name, "a count");
    return value.get<int64_t>();
  }

  std::string text(std::string_view name) const {
    const ordered_json& value = get(name, "text");
    if (!value.is_string()) bad(name, "text");
    return value.get<std::string>();
  }

  std::string checksum(std::string_view name) const {
    std::string digits = text(name);
    if (digits.size() != kHashDigits || digits.find_first_not_of("0123456789abcdef") != std::string::npos)
      bad(name, "32 hexadecimal digits");
    return digits;
  }

  DType dtype() const {
    const std::string name = text("dtype");
    for (const DType dtype : kDTypes)
      if (file_dtype_name(file_dtype(dtype)) == name) return dtype;
    bad("dtype", "F64, F32, BF16, I32 or I64");
  }

  // With a number of bytes that fits in 62 bits.
  Shape shape(DType dtype) const {
    const ordered_json& value = get("shape", "a list of counts");
    if (!value.is_array() || value.size() > Shape::kMaxRank) bad("shape", "a list of at most 5 counts");
    Shape shape;
    int64_t num_bytes = dtype_bytes(dtype);
    for (const auto& dim : value) {
      if (!dim.is_number_unsigned() || dim.get<uint64_t>() > uint64_t{1} << 62) bad("shape", "a list of counts");
      shape.push_back(dim.get<int64_t>());
      if (__builtin_mul_overflow(num_bytes, dim.get<int64_t>(), &num_bytes) || num_bytes > int64_t{1} << 62)
        bad("shape", "smaller than every disk");
    }
    return shape;
  }
};

// The rank of a name that tensor_file_name gives; -1 for others.
int64_t rank_of(const std::string& name) {
  constexpr std::string_view kBefore = "tensors-";
  int64_t rank = -1;
  if (name.starts_with(kBefore)) std::from_chars(name.data() + kBefore.size(), name.data() + name.size(), rank);
  return rank >= 0 && name == tensor_file_name(rank) ? rank : -1;
}

void read_files(const ordered_json& list, const std::string& origin, StateManifest& manifest) {
  int64_t rank_before = -1;
  for (const auto& entry : list) {
    const Members members{entry, fmt::format("{}: file number {}", origin, manifest.files.size())};
    StateFile file;
    file.name = members.text("name");
    const int64_t rank = rank_of(file.name);
    if (rank <= rank_before) members.bad("name", "tensors-<digits>.safetensors, of a higher rank than the file before");
    rank_before = rank;
    file.num_bytes = members.count("bytes");
    file.header_bytes = members.count("header_bytes");
    file.header_xxh3 = members.checksum("header_xxh3");
    if (file.header_bytes > file.num_bytes) members.bad("header_bytes", "at most the bytes of the file");
    manifest.files.push_back(std::move(file));
  }
}

// The pieces of a tensor: without a gap, within the bytes of their files.
void read_pieces(const Members& of_tensor, const std::vector<StateFile>& files, ManifestTensor& tensor) {
  const ordered_json& list = of_tensor.get("pieces", "a list");
  if (!list.is_array()) of_tensor.bad("pieces", "a list");
  const int64_t size = tensor.shape.size();
  int64_t end = 0;
  for (const auto& entry : list) {
    const Members members{entry, fmt::format("{}: piece number {}", of_tensor.where, tensor.pieces.size())};
    StatePiece piece;
    piece.begin = members.count("begin"), piece.count = members.count("count");
    if (piece.begin != end) members.bad("begin", fmt::format("{}, where the piece before ends", end));
    if (piece.count == 0 || piece.count > size - end) members.bad("count", "at least 1, and within the tensor");
    end += piece.count;
    piece.file = members.count("file"), piece.offset = members.count("at");
    if (piece.file >= static_cast<int64_t>(files.size())) members.bad("file", "the number of a file");
    const StateFile& file = files[static_cast<size_t>(piece.file)];
    if (piece.offset < file.header_bytes || piece.offset > file.num_bytes ||
        piece.count * dtype_bytes(tensor.dtype) > file.num_bytes - piece.offset)
      members.bad("at", "such that the piece lies behind the header of its file and within it");
    piece.xxh3 = members.checksum("xxh3");
    tensor.pieces.push_back(std::move(piece));
  }
  if (end != size)
    fail(ErrorCode::kCorrupt, "{}: its pieces end at element {}, the tensor has {}", of_tensor.where, end, size);
}

void read_tensors(const ordered_json& list, const std::string& origin, StateManifest& manifest) {
  std::set<std::string> names;
  for (const auto& entry : list) {
    Members members{entry, fmt::format("{}: tensor number {}", origin, manifest.tensors.size())};
    ManifestTensor tensor;
    tensor.name = members.text("name");
    members.where = origin + ": tensor " + tensor.name;
    if (!names.insert(tensor.name).second) members.bad("name", "a name that no other tensor has");
    tensor.dtype = members.dtype();
    tensor.shape = members.shape(tensor.dtype);
    read_pieces(members, manifest.files, tensor);
    manifest.tensors.push_back(std::move(tensor));
  }
}

// Every byte of a file behind its header belongs to one piece.
void check_files(const StateManifest& manifest, const std::string& origin) {
  std::vector<std::vector<std::pair<int64_t, int64_t>>> used(manifest.files.size());  // offset, bytes
  for (const ManifestTensor& tensor : manifest.tensors)
    for (const StatePiece& piece : tensor.pieces)
      used[static_cast<size_t>(piece.file)].emplace_back(piece.offset, piece.count * dtype_bytes(tensor.dtype));
  for (size_t i = 0; i < used.size(); ++i) {
    const StateFile& file = manifest.files[i];
    std::sort(used[i].begin(), used[i].end());
    int64_t end = file.header_bytes;
    for (const auto& [offset, num_bytes] : used[i]) {
      if (offset != end)
        fail(ErrorCode::kCorrupt, "{}: a piece begins at byte {} of {}, the one before ends at {}", origin, offset,
             file.name, end);
      end += num_bytes;
    }
    if (end != file.num_bytes)
      fail(ErrorCode::kCorrupt, "{}: the pieces of {} end at byte {}, the file at {}", origin, file.name, end,
           file.num_bytes);
  }
}

ordered_json tensor_json(const ManifestTensor& tensor) {
  ordered_json shape = ordered_json::array(), pieces = ordered_json::array();
  for (int dim = 0; dim < tensor.shape.rank(); ++dim) shape.push_back(tensor.shape[dim]);
  for (const StatePiece& piece : tensor.pieces)
    pieces.push_back({{"begin", piece.begin},
                      {"count", piece.count},
                      {"file", piece.file},
                      {"at", piece.offset},
                      {"xxh3", piece.xxh3}});
  return {{"name", tensor.name},
          {"dtype", file_dtype_name(file_dtype(tensor.dtype))},
          {"shape", std::move(shape)},
          {"pieces", std::move(pieces)}};
}

// Refuses bytes that are not what their hash says, and returns it.
std::string checked_hash(std::string_view bytes, const std::string& origin) {
  if (static_cast<int64_t>(bytes.size()) > kMaxManifestBytes)
    fail(ErrorCode::kCorrupt, "{}: {} bytes, a manifest has at most {}", origin, bytes.size(), kMaxManifestBytes);
  const std::string_view tail = bytes.substr(bytes.size() - std::min(bytes.size(), kTailBytes));
  if (bytes.size() < kTailBytes || !tail.starts_with(kHashBegin) || !tail.ends_with(kHashEnd))
    fail(ErrorCode::kCorrupt, "{}: does not end with its hash; it is truncated or no manifest of a run state", origin);
  const std::string_view body = bytes.substr(0, bytes.size() - kTailBytes);
  const std::string found = StateHash::of(body), said(tail.substr(kHashBegin.size(), kHashDigits));
  if (said != found) fail(ErrorCode::kCorrupt, "{}: its bytes have the hash {}, it says {}", origin, found, said);
  return said;
}

}  // namespace

int64_t StateManifest::num_bytes() const {
  int64_t total = 0;
  for (const StateFile& file : files) total += file.num_bytes;
  return total;
}

std::string tensor_file_name(int64_t rank) { return fmt::format("tensors-{:05}.safetensors", rank); }

std::string with_hash(std::string body) {
  const std::string hash = StateHash::of(body);
  return body.append(kHashBegin).append(hash).append(kHashEnd);
}

std::string manifest_text(StateManifest& manifest) {
  std::string out = fmt::format("{{\n\"format\": \"{}\",\n\"version\": {},\n\"step\": {}", kStateFormat, kStateVersion,
                                manifest.step);
  if (manifest.score) out += fmt::format(",\n\"score\": {}", text_of(*manifest.score));
  out += fmt::format(",\n\"facts\": {}", text_of(manifest.facts));
  out += ",\n\"files\": [";
  for (size_t i = 0; i < manifest.files.size(); ++i) {
    const StateFile& file = manifest.files[i];
    out += (i == 0 ? "\n" : ",\n") + text_of({{"name", file.name},
                                              {"bytes", file.num_bytes},
                                              {"header_bytes", file.header_bytes},
                                              {"header_xxh3", file.header_xxh3}});
  }
  out += "\n],\n\"tensors\": [";
  for (size_t i = 0; i < manifest.tensors.size(); ++i)
    out += (i == 0 ? "\n" : ",\n") + text_of(tensor_json(manifest.tensors[i]));
  out += "\n]";
  manifest.hash = StateHash::of(out);
  return with_hash(std::move(out));
}

StateManifest parse_manifest(std::string_view bytes, const std::string& origin) {
  StateManifest manifest;
  manifest.hash = checked_hash(bytes, origin);
  const auto json = parse_json<ordered_json>(bytes, origin);
  const Members members{json, origin};
  if (members.text("format") != kStateFormat) members.bad("format", kStateFormat);
  if (const int64_t version = members.count("version"); version != kStateVersion)
    fail(ErrorCode::kUnsupported, "{}: version {} of the run state, this program reads version {}", origin, version,
         kStateVersion);
  manifest.step = members.count("step");
  if (json.contains("score")) {
    const ordered_json& score = json["score"];
    if (!score.is_number()) members.bad("score", "a number");
    manifest.score = score.get<double>();
  }
  manifest.facts = members.get("facts", "an object");
  if (!manifest.facts.is_object()) members.bad("facts", "an object");
  const ordered_json &files = members.get("files", "a list"), &tensors = members.get("tensors", "a list");
  if (!files.is_array()) members.bad("files", "a list");
  if (!tensors.is_array()) members.bad("tensors", "a list");
  read_files(files, origin, manifest);
  read_tensors(tensors, origin, manifest);
  check_files(manifest, origin);
  return manifest;
}

}  // namespace temper::checkpoint
