// TensorBoard event files: equal byte for byte to what TensorBoard's own writer makes, and exact across a resume.
#include "train/event_file.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/lines.h"
#include "base/scratch_dir.h"

namespace temper::train {
namespace {

const std::filesystem::path kFixture = TEMPER_SOURCE_DIR "/tests/fixtures/events";

class EventFileTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string contents = read_file(kFixture / "metrics.jsonl");
    for_each_line(contents,
                  [&](std::string_view line, int64_t) { lines_.push_back(nlohmann::ordered_json::parse(line)); });
  }

  const test::ScratchDir directory_;
  const std::filesystem::path path_ = directory_ / kEventFileName;
  const std::string tensorboard_ = read_file(kFixture / kEventFileName);
  std::vector<nlohmann::ordered_json> lines_;
};

TEST_F(EventFileTest, EqualsTheFileOfTensorBoardsOwnWriter) {
  EventFile file(path_, 0);
  EXPECT_EQ(file.position(), 0);
  for (const auto& line : lines_) file.write(line);
  EXPECT_TRUE(file.sync());
  EXPECT_EQ(read_file(path_), tensorboard_);
  EXPECT_EQ(file.position(), static_cast<int64_t>(tensorboard_.size()));
}

TEST_F(EventFileTest, AResumedRunCutsTheFileBackAndEndsWithTheSameBytes) {
  int64_t position = 0;
  {
    EventFile file(path_, 0);
    for (size_t i = 0; i < 3; ++i) {
      file.write(lines_[i]);
      if (i == 1) position = file.position();
    }
  }
  EventFile resumed(path_, position);
  EXPECT_EQ(resumed.position(), position);
  for (size_t i = 2; i < lines_.size(); ++i) resumed.write(lines_[i]);
  EXPECT_EQ(read_file(path_), tensorboard_);
}

TEST_F(EventFileTest, GoesOnBehindTheLastWholeRecordWhenTheDiskLostTheEnd) {
  int64_t second = 0;
  {
    EventFile file(path_, 0);
    file.write(lines_[0]);
    second = file.position();
    file.write(lines_[1]);
  }
  const auto before = static_cast<int64_t>(std::filesystem::file_size(path_));
  std::filesystem::resize_file(path_, static_cast<size_t>(before - 3));
  EventFile resumed(path_, before);
  EXPECT_EQ(resumed.position(), second);
  for (size_t i = 1; i < lines_.size(); ++i) resumed.write(lines_[i]);
  EXPECT_EQ(read_file(path_), tensorboard_);
}

TEST(EventRecords, ChecksumIsMaskedCastagnoli) {
  const uint32_t crc = 0xe3069283;  // of "123456789", RFC 3720's polynomial; catalogued as CRC-32/ISCSI
  EXPECT_EQ(masked_crc32c("123456789"), ((crc >> 15) | (crc << 17)) + 0xa282ead8u);
}

TEST(EventRecords, ATagKnowsItsField) {
  EXPECT_EQ(event_tag("loss"), "train/loss");
  EXPECT_EQ(event_tag("eval_loss"), "eval/loss");
  EXPECT_EQ(event_tag("forward_ms"), "time/forward_ms");
  EXPECT_EQ(event_tag("grad_norm/experts"), "grad_norm/experts");
  for (const char* field : {"loss", "eval_loss", "forward_ms", "grad_norm/experts", "eval_forward_ms"})
    EXPECT_EQ(event_field(event_tag(field)), field);
  EXPECT_EQ(event_field("Loss"), "Loss");
  EXPECT_EQ(event_field("other/thing/loss"), "other/thing/loss");
}

}  // namespace
}  // namespace temper::train
