#include "checkpoint/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <optional>
#include <set>

#include "base/check.h"
#include "base/error.h"
#include "base/json.h"

namespace temper::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor data are written as they lie in memory");

struct DTypeRow {
  FileDType dtype;
  int64_t num_bytes;
  std::string_view name;
};

constexpr DTypeRow kDTypes[] = {
    {FileDType::kF64, 8, "F64"},        {FileDType::kF32, 4, "F32"},        {FileDType::kF16, 2, "F16"},
    {FileDType::kBF16, 2, "BF16"},      {FileDType::kI64, 8, "I64"},        {FileDType::kI32, 4, "I32"},
    {FileDType::kI8, 1, "I8"},          {FileDType::kU8, 1, "U8"},          {FileDType::kBool, 1, "BOOL"},
    {FileDType::kF8E4M3, 1, "F8_E4M3"}, {FileDType::kF8E8M0, 1, "F8_E8M0"},
};

constexpr int64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library

std::optional<FileDType> parse_dtype(std::string_view name) {
  for (const auto& row : kDTypes)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

// An integer >= 0 that fits, or nothing.
std::optional<int64_t> read_count(const nlohmann::json& value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{1} << 62) return std::nullopt;
  return value.get<int64_t>();
}

// The number of elements, and of bytes, fits in 62 bits.
bool fits(const std::vector<int64_t>& shape) {
  int64_t size = 1;
  for (int64_t dim : shape)
    if (__builtin_mul_overflow(size, dim, &size) || size > int64_t{1} << 58) return false;
  return true;
}

// One entry of the header, read with messages that name file and tensor.
struct Entry {
  std::string file;
  std::string name;

  [[noreturn]] void bad(std::string_view expected, const nlohmann::json& found) const {
    fail(ErrorCode::kCorrupt, "{}: tensor {}: {}, found {}", file, name, expected, describe_json(found));
  }

  std::vector<int64_t> read_shape(const nlohmann::json& shape) const {
    if (!shape.is_array()) bad("shape must be a list", shape);
    std::vector<int64_t> dims;
    for (const auto& value : shape) {
      const auto dim = read_count(value);
      if (!dim) bad("shape must be a list of counts", shape);
      dims.push_back(*dim);
    }
    if (!fits(dims)) bad("the number of elements exceeds every memory", shape);
    return dims;
  }

  StoredTensor read(const nlohmann::json& entry, std::span<const std::byte> data) const {
    const auto dtype = entry.find("dtype"), shape = entry.find("shape"), offsets = entry.find("data_offsets");
    if (dtype == entry.end() || shape == entry.end() || offsets == entry.end() || entry.size() != 3)
      bad("expected dtype, shape and data_offsets", entry);
    if (!dtype->is_string()) bad("dtype must be text", *dtype);
    const auto known = parse_dtype(dtype->get_ref<const std::string&>());
    if (!known)
      fail(ErrorCode::kUnsupported, "{}: tensor {} has dtype {}, which this program does not know", file, name,
           describe_json(*dtype));
    StoredTensor tensor;
    tensor.name = name;
    tensor.dtype = *known;
    tensor.shape = read_shape(*shape);
    if (!offsets->is_array() || offsets->size() != 2) bad("data_offsets must be [begin, end]", *offsets);
    const auto begin = read_count((*offsets)[0]), end = read_count((*offsets)[1]);
    if (!begin || !end || *begin > *end || *end > std::ssize(data))
      bad(fmt::format("data_offsets must lie within the {} data bytes (is the file truncated?)", data.size()),
          *offsets);
    if (*end - *begin != tensor.num_bytes())
      fail(ErrorCode::kCorrupt, "{}: tensor {}: {} takes {} bytes, data_offsets give {}", file, name,
           tensor.to_string(), tensor.num_bytes(), *end - *begin);
    tensor.data = data.data() + *begin;
    return tensor;
  }
};

// The header's tensors with their data, in the order of the data.
SafetensorsContents read_header(std::string_view text, std::span<const std::byte> data, const std::string& file) {
  const std::string origin = file + ": header";
  const auto header = parse_json<nlohmann::json>(text, origin, 4);
  if (!header.is_object())
    fail(ErrorCode::kCorrupt, "{}: expected a JSON object, found {}", origin, describe_json(header));
  SafetensorsContents contents;
  for (const auto& [name, entry] : header.items()) {
    const Entry reader{file, name};
    if (!entry.is_object()) reader.bad("expected an object", entry);
    if (name != "__metadata__") {
      contents.tensors.push_back(reader.read(entry, data));
      continue;
    }
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) reader.bad("metadata must be text", value);
      contents.metadata[key] = value.get<std::string>();
    }
  }
  std::stable_sort(contents.tensors.begin(), contents.tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return a.data != b.data ? a.data < b.data : a.num_bytes() < b.num_bytes();
  });
  return contents;
}

// The tensors touch each other and fill the data.
void check_layout(const std::vector<StoredTensor>& tensors, std::span<const std::byte> data, const std::string& file) {
  int64_t end = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t begin = tensors[i].data - data.data();
    if (begin < end)
      fail(ErrorCode::kCorrupt, "{}: tensors {} and {} overlap at data byte {}", file, tensors[i - 1].name,
           tensors[i].name, begin);
    if (begin > end)
      fail(ErrorCode::kCorrupt, "{}: data bytes {} to {} before tensor {} belong to no tensor", file, end, begin,
           tensors[i].name);
    end = begin + tensors[i].num_bytes();
  }
  if (end != std::ssize(data))
    fail(ErrorCode::kCorrupt, "{}: the tensors end at data byte {}, the file at {}", file, end, data.size());
}

}  // namespace

int64_t file_dtype_bytes(FileDType dtype) { return kDTypes[static_cast<int>(dtype)].num_bytes; }
std::string_view file_dtype_name(FileDType dtype) { return kDTypes[static_cast<int>(dtype)].name; }

int64_t TensorInfo::size() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, [](int64_t a, int64_t b) { return a * b; });
}

std::string TensorInfo::to_string() const {
  return fmt::format("{} [{}]", file_dtype_name(dtype), fmt::join(shape, ", "));
}

void release_pages(const StoredTensor& tensor) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t before = reinterpret_cast<uintptr_t>(tensor.data) % page;  // madvise begins at a page
  auto* begin = const_cast<std::byte*>(tensor.data) - before;
  const auto num_bytes = static_cast<uintptr_t>(tensor.num_bytes()) + before;
  if (tensor.num_bytes() > 0) ::madvise(begin, num_bytes, MADV_DONTNEED);  // a wish: nothing to check
}

SafetensorsContents read_safetensors(std::span<const std::byte> bytes, const std::string& origin) {
  if (std::ssize(bytes) < kLengthBytes)
    fail(ErrorCode::kCorrupt, "{}: {} bytes, a safetensors file has at least {}; is it truncated?", origin,
         bytes.size(), kLengthBytes);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  const auto rest = bytes.subspan(kLengthBytes);
  if (header_bytes > rest.size())
    fail(ErrorCode::kCorrupt,
         "{}: the header claims {} bytes, {} follow; the file is truncated or not a safetensors file", origin,
         header_bytes, rest.size());
  if (header_bytes > kMaxHeaderBytes)
    fail(ErrorCode::kCorrupt, "{}: the header claims {} bytes, the most allowed is {}", origin, header_bytes,
         kMaxHeaderBytes);
  const auto data = rest.subspan(header_bytes);
  auto contents = read_header({reinterpret_cast<const char*>(rest.data()), header_bytes}, data, origin);
  check_layout(contents.tensors, data, origin);
  return contents;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path),
      file_(path),
      contents_(read_safetensors({file_.data(), static_cast<size_t>(file_.size())}, path.string())) {}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto at =
      std::find_if(tensors().begin(), tensors().end(), [&](const auto& tensor) { return tensor.name == name; });
  return at == tensors().end() ? nullptr : &*at;
}

std::string safetensors_header(const std::vector<TensorInfo>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};  // transformers refuses a file without it
  std::string text = header.dump();
  text.pop_back();
  std::set<std::string_view> names;
  int64_t end = 0;
  for (const auto& tensor : tensors) {
    CHECK(names.insert(tensor.name).second, tensor.name);
    CHECK(end % file_dtype_bytes(tensor.dtype) == 0, tensor.name, end);
    nlohmann::ordered_json entry;
    entry["dtype"] = file_dtype_name(tensor.dtype);
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {end, end + tensor.num_bytes()};
    text += "," + nlohmann::json(tensor.name).dump() + ":" + entry.dump();
    end += tensor.num_bytes();
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors)
    : writer_(path) {
  const std::string header = safetensors_header(tensors);
  writer_.write(header.data(), static_cast<int64_t>(header.size()));
  for (const auto& tensor : tensors) remaining_bytes_ += tensor.num_bytes();
}

void SafetensorsWriter::write(const void* data, int64_t num_bytes) {
  CHECK(num_bytes <= remaining_bytes_, num_bytes, remaining_bytes_);
  writer_.write(data, num_bytes);
  remaining_bytes_ -= num_bytes;
}

void SafetensorsWriter::commit() {
  CHECK(remaining_bytes_ == 0, remaining_bytes_);
  writer_.commit();
}

}  // namespace temper::checkpoint
