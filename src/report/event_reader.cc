#include "report/event_reader.h"

#include "base/error.h"
#include "train/event.pb.h"
#include "train/event_file.h"

namespace temper::report {

using train::RecordState;

Events parse_events(std::string_view file, const std::filesystem::path& path) {
  Events events;
  size_t offset = 0;
  for (int64_t number = 1;; ++number) {
    const size_t begin = offset;
    std::string_view data;
    const RecordState state = train::next_record(file, offset, data);
    if (state == RecordState::kEnd) break;
    if (state == RecordState::kTruncated) {
      events.num_cut_bytes = static_cast<int64_t>(file.size() - begin);
      break;
    }
    train::proto::Event event;
    if (state == RecordState::kCorrupt || !event.ParseFromArray(data.data(), static_cast<int>(data.size()))) {
      fail(ErrorCode::kCorrupt, "{}: record {}, at byte {}, is damaged: {}", path.string(), number, begin,
           state == RecordState::kCorrupt ? "its checksum does not fit" : "it does not hold a TensorBoard event");
    }
    if (event.what_case() == train::proto::Event::kFileVersion) events.file_version = event.file_version();
    for (const auto& value : event.summary().value()) {
      if (value.value_case() != train::proto::Summary::Value::kSimpleValue) continue;
      events.scalars[value.tag()].push_back({event.step(), event.wall_time(), value.simple_value()});
    }
  }
  return events;
}

}  // namespace temper::report
