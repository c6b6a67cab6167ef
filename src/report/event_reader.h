// Reads the scalars of a TensorBoard event file, ours or another program's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "report/run_log.h"

namespace temper::report {

struct Events {
  std::string file_version;
  std::map<std::string, std::vector<Point>> scalars;  // by tag, in the order of the file
  int64_t num_cut_bytes = 0;                          // of a last record that the file does not hold whole
};

// The format is train/event_file.h's; scalars are simple_value's, anything else is passed over. Both checksums of every
// record are tested. Throws kCorrupt naming the record and its byte.
Events parse_events(std::string_view file, const std::filesystem::path& path);

}  // namespace temper::report
