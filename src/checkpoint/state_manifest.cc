#include "checkpoint/state_manifest.h"

#include <cmath>
#include <set>

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

void read_file_member(const Members& file, StateManifest& manifest) {
  if (file.text("name") != kTensorFileName) file.bad("name", kTensorFileName);
  manifest.file_bytes = file.count("bytes");
  manifest.header_bytes = file.count("header_bytes");
  manifest.header_xxh3 = file.checksum("header_xxh3");
  if (manifest.header_bytes > manifest.file_bytes) file.bad("header_bytes", "at most the bytes of the file");
}

void read_tensors(const ordered_json& list, const std::string& origin, StateManifest& manifest) {
  int64_t end = manifest.header_bytes;
  std::set<std::string> names;
  for (const auto& entry : list) {
    Members members{entry, fmt::format("{}: tensor number {}", origin, manifest.tensors.size())};
    ManifestTensor tensor;
    tensor.name = members.text("name");
    members.where = origin + ": tensor " + tensor.name;
    if (!names.insert(tensor.name).second) members.bad("name", "a name that no other tensor has");
    tensor.dtype = members.dtype();
    tensor.shape = members.shape(tensor.dtype);
    tensor.num_bytes = members.count("bytes");
    if (tensor.num_bytes != tensor.shape.size() * dtype_bytes(tensor.dtype))
      members.bad("bytes", "what dtype and shape take");
    if (tensor.num_bytes > manifest.file_bytes - end) members.bad("bytes", "within the bytes of the file");
    tensor.offset = end;
    end += tensor.num_bytes;
    tensor.xxh3 = members.checksum("xxh3");
    manifest.tensors.push_back(std::move(tensor));
  }
  if (end != manifest.file_bytes)
    fail(ErrorCode::kCorrupt, "{}: the tensors end at byte {}, the file at {}", origin, end, manifest.file_bytes);
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

std::string with_hash(std::string body) {
  const std::string hash = StateHash::of(body);
  return body.append(kHashBegin).append(hash).append(kHashEnd);
}

std::string manifest_text(StateManifest& manifest) {
  std::string out = fmt::format("{{\n\"format\": \"{}\",\n\"version\": {},\n\"step\": {}", kStateFormat, kStateVersion,
                                manifest.step);
  if (manifest.score) out += fmt::format(",\n\"score\": {}", text_of(*manifest.score));
  out += fmt::format(",\n\"facts\": {}", text_of(manifest.facts));
  const ordered_json file = {{"name", kTensorFileName},
                             {"bytes", manifest.file_bytes},
                             {"header_bytes", manifest.header_bytes},
                             {"header_xxh3", manifest.header_xxh3}};
  out += fmt::format(",\n\"file\": {},\n\"tensors\": [", text_of(file));
  for (size_t i = 0; i < manifest.tensors.size(); ++i) {
    const ManifestTensor& tensor = manifest.tensors[i];
    ordered_json shape = ordered_json::array();
    for (int dim = 0; dim < tensor.shape.rank(); ++dim) shape.push_back(tensor.shape[dim]);
    const ordered_json line = {{"name", tensor.name},
                               {"dtype", file_dtype_name(file_dtype(tensor.dtype))},
                               {"shape", std::move(shape)},
                               {"bytes", tensor.num_bytes},
                               {"xxh3", tensor.xxh3}};
    out += (i == 0 ? "\n" : ",\n") + text_of(line);
  }
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
  read_file_member({members.get("file", "an object"), origin + ": file"}, manifest);
  const ordered_json& tensors = members.get("tensors", "a list");
  if (!tensors.is_array()) members.bad("tensors", "a list");
  read_tensors(tensors, origin, manifest);
  return manifest;
}

}  // namespace temper::checkpoint
