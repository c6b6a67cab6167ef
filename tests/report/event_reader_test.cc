// Our reading of an event file equals TensorBoard's; damage is named, a cut end is told.
#include "report/event_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "train/event_file.h"

namespace temper::report {
namespace {

using testing::HasSubstr;

const std::filesystem::path kFixture = TEMPER_SOURCE_DIR "/tests/fixtures/events";

std::string fixture() { return read_file(kFixture / train::kEventFileName); }

std::string message_of(const std::string& file) {
  try {
    parse_events(file, "run/events");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    return error.what();
  }
  return "no error";
}

TEST(EventReader, ReadsWhatTensorBoardReads) {
  const Events events = parse_events(fixture(), "events");
  EXPECT_EQ(events.file_version, train::kEventFileVersion);
  EXPECT_EQ(events.num_cut_bytes, 0);
  const auto tensorboard = nlohmann::json::parse(read_file(kFixture / "tensorboard.json"));
  ASSERT_EQ(events.scalars.size(), tensorboard.size());
  for (const auto& [tag, expected] : tensorboard.items()) {
    const std::vector<Point>& points = events.scalars.at(tag);
    ASSERT_EQ(points.size(), expected.size()) << tag;
    for (size_t i = 0; i < points.size(); ++i) {
      EXPECT_EQ(points[i].step, expected[i][0]) << tag;
      EXPECT_EQ(points[i].wall_time, expected[i][1]) << tag;
      if (expected[i][2].is_string()) {
        EXPECT_EQ(points[i].value, INFINITY) << tag;
      } else {
        EXPECT_EQ(points[i].value, expected[i][2]) << tag;
      }
    }
  }
}

TEST(EventReader, EveryCutIsTold) {
  const std::string whole = fixture();
  int64_t num_at_a_border = 0;
  for (size_t length = 0; length < whole.size(); ++length) {
    const Events events = parse_events(std::string_view(whole).substr(0, length), "events");
    if (events.num_cut_bytes == 0) ++num_at_a_border;
  }
  EXPECT_EQ(num_at_a_border, 5);  // before each of the five records
}

TEST(EventReader, EveryFlippedBitIsFound) {
  const std::string whole = fixture();
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    EXPECT_THAT(message_of(damaged), HasSubstr("its checksum does not fit")) << "byte " << at;
  }
}

TEST(EventReader, NamesTheRecordAndItsByte) {
  std::string damaged = fixture();
  damaged[60] ^= 1;
  EXPECT_EQ(message_of(damaged), "run/events: record 2, at byte 40, is damaged: its checksum does not fit");
}

TEST(EventReader, RefusesDataThatIsNoEvent) {
  const std::string data = "\xff\xff\xff";
  std::string record = {3, 0, 0, 0, 0, 0, 0, 0};
  const auto append = [&record](uint32_t crc) { record.append(reinterpret_cast<const char*>(&crc), 4); };
  append(train::masked_crc32c(record));
  record += data;
  append(train::masked_crc32c(data));
  EXPECT_THAT(message_of(record), HasSubstr("does not hold a TensorBoard event"));
}

}  // namespace
}  // namespace temper::report
