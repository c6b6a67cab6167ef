#include "train/event_file.h"

#include <fmt/format.h>

#include <array>

#include "train/event.pb.h"

namespace temper::train {
namespace {

constexpr size_t kHeadBytes = 12;  // length and its checksum

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[byte] = crc;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

void append_little_endian(std::string& out, uint64_t value, int num_bytes) {
  for (int i = 0; i < num_bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t read_little_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::string record(const proto::Event& event) {
  const std::string data = event.SerializeAsString();
  std::string out;
  append_little_endian(out, data.size(), 8);
  append_little_endian(out, masked_crc32c(out), 4);
  out += data;
  append_little_endian(out, masked_crc32c(data), 4);
  return out;
}

// keep_bytes, or the end of the last whole record of a file that is shorter.
int64_t kept_bytes(const std::filesystem::path& path, int64_t keep_bytes, Files& files) {
  if (keep_bytes == 0 || !files.exists(path)) return 0;
  const std::unique_ptr<InputFile> input = files.open_read(path);
  if (input->size() >= keep_bytes) return keep_bytes;
  std::string contents(static_cast<size_t>(input->size()), '\0');
  input->read(contents.data(), input->size(), 0);
  size_t end = 0;
  std::string_view data;
  while (next_record(contents, end, data) == RecordState::kWhole) {
  }
  return static_cast<int64_t>(end);
}

}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

std::string event_tag(std::string_view field) {
  if (field.find('/') != field.npos) return std::string(field);
  if (field.starts_with("eval_")) return fmt::format("eval/{}", field.substr(5));
  return fmt::format("{}/{}", field.ends_with("_ms") ? "time" : "train", field);
}

std::string event_field(std::string_view tag) {
  std::string field(tag);
  if (tag.starts_with("eval/")) {
    field = "eval_" + field.substr(5);
  } else if (const size_t slash = tag.find('/'); slash != tag.npos) {
    field = field.substr(slash + 1);
  }
  return event_tag(field) == tag ? field : std::string(tag);
}

RecordState next_record(std::string_view file, size_t& offset, std::string_view& data) {
  const std::string_view rest = file.substr(offset);
  if (rest.empty()) return RecordState::kEnd;
  if (rest.size() < kHeadBytes) return RecordState::kTruncated;
  const uint64_t length = read_little_endian(rest.substr(0, 8));
  if (masked_crc32c(rest.substr(0, 8)) != read_little_endian(rest.substr(8, 4))) return RecordState::kCorrupt;
  if (length > rest.size() - kHeadBytes || rest.size() - kHeadBytes - length < 4) return RecordState::kTruncated;
  const std::string_view found = rest.substr(kHeadBytes, length);
  if (masked_crc32c(found) != read_little_endian(rest.substr(kHeadBytes + length, 4))) return RecordState::kCorrupt;
  offset += kHeadBytes + length + 4;
  data = found;
  return RecordState::kWhole;
}

EventFile::EventFile(const std::filesystem::path& path, int64_t keep_bytes, Files& files)
    : file_(path, kept_bytes(path, keep_bytes, files), files) {}

void EventFile::write(const nlohmann::ordered_json& metrics_line) {
  proto::Event event;
  event.set_wall_time(metrics_line.at("wall_time").get<double>());
  std::string records;
  if (file_.position() == 0) {
    event.set_file_version(kEventFileVersion);
    records = record(event);
  }
  event.set_step(metrics_line.at("step").get<int64_t>());
  proto::Summary& summary = *event.mutable_summary();
  for (const auto& [field, value] : metrics_line.items()) {
    if (!value.is_number() || field == "step" || field == "wall_time") continue;
    proto::Summary::Value& scalar = *summary.add_value();
    scalar.set_tag(event_tag(field));
    scalar.set_simple_value(value.get<float>());
  }
  file_.write(records + record(event));
}

}  // namespace temper::train
