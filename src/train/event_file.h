// TensorBoard event files: the scalars of metrics.jsonl for whoever watches a run in TensorBoard.
//
// A file is a sequence of records, all integers little-endian:
//   u64 length of data    u32 masked CRC-32C of the 8 bytes of length    data    u32 masked CRC-32C of data
// data is an Event (event.proto). The first event says file_version "brain.Event:2"; each other one holds the scalars
// of one step. TensorBoard takes any file whose name holds "tfevents".
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/append_file.h"

namespace temper::train {

inline constexpr const char* kEventFileName = "events.out.tfevents.temper";
inline constexpr const char* kEventFileVersion = "brain.Event:2";

// CRC-32C (Castagnoli), rotated right by 15 bits plus 0xa282ead8: a checksum of data that holds checksums.
uint32_t masked_crc32c(std::string_view bytes);

// The tag under which TensorBoard shows a field of metrics.jsonl; what stands before "/" is a group of charts there.
//   eval_<x>  eval/<x>      <x>_ms  time/<x>_ms      <group>/<x>  as it is      any other <x>  train/<x>
std::string event_tag(std::string_view field);

// Inverse of event_tag; a tag that event_tag does not make stays as it is.
std::string event_field(std::string_view tag);

enum class RecordState { kWhole, kEnd, kTruncated, kCorrupt };

// Reads the record at `offset` of the bytes of an event file. kWhole: `data` is what it holds, and offset has moved
// behind it; otherwise neither is touched. kEnd: nothing is left. kTruncated: the file ends within the record.
RecordState next_record(std::string_view file, size_t& offset, std::string_view& data);

class EventFile {
 public:
  // Goes on behind the first keep_bytes bytes of the file at path, which an earlier EventFile named as its position();
  // 0 begins anew. If the disk lost the end of those bytes, behind the last whole record. Throws Error kIo.
  EventFile(const std::filesystem::path& path, int64_t keep_bytes, Files& files = system_files());

  // Appends one event: every number of a metrics line but its `step` and `wall_time`, which the line must have, as a
  // scalar in fp32. A full disk does not throw: take_news().
  void write(const nlohmann::ordered_json& metrics_line);

  // As AppendFile's.
  int64_t position() const { return file_.position(); }
  bool sync() { return file_.sync(); }
  std::string take_news() { return file_.take_news(); }

 private:
  AppendFile file_;
};

}  // namespace temper::train
