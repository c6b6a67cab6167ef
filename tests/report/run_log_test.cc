// A run's log as series: what is read, what is told, what is refused and where.
#include "report/run_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace temper::report {
namespace {

using testing::HasSubstr;

std::string message_of(const std::string& contents) {
  try {
    parse_metrics(contents, "run/metrics.jsonl");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(RunLog, NumbersBecomeSeriesAndTheRestIsPassedOver) {
  const RunLog log = parse_metrics(
      "{\"step\":1,\"loss\":2.5,\"wall_time\":10.5,\"stage\":\"sft\",\"finite\":true,\"x\":{\"y\":1},\"z\":null}\n"
      "\n{\"step\":2,\"loss\":2.25,\"wall_time\":11}\n{\"step\":2,\"eval_loss\":3}\n",
      "m");
  ASSERT_EQ(log.series.size(), 2);
  ASSERT_EQ(log.at("loss").size(), 2);
  EXPECT_EQ(log.at("loss")[1].step, 2);
  EXPECT_EQ(log.at("loss")[1].wall_time, 11);
  EXPECT_EQ(log.at("loss")[1].value, 2.25);
  EXPECT_EQ(log.at("eval_loss").size(), 1);
  EXPECT_TRUE(log.at("grad_norm").empty());
  EXPECT_TRUE(log.notes.empty());
}

TEST(RunLog, AHalfWrittenLastLineIsLeftOutAndTold) {
  const RunLog log = parse_metrics("{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"lo", "m");
  EXPECT_EQ(log.at("loss").size(), 1);
  ASSERT_EQ(log.notes.size(), 1);
  EXPECT_EQ(log.notes[0], "m: the last line is only half written (13 bytes); it is left out");
  EXPECT_EQ(parse_metrics("{\"step\":1,\"loss\":2.5}", "m").at("loss").size(), 1) << "whole but for its line end";
}

TEST(RunLog, AMalformedLineIsNamedByItsNumber) {
  EXPECT_THAT(message_of("{\"step\":1}\n\n{\"step\":2,\n"), HasSubstr("run/metrics.jsonl:3: not valid JSON"));
  EXPECT_THAT(message_of("[1]\n"), HasSubstr("run/metrics.jsonl:1: expected a JSON object with an integer `step`"));
  EXPECT_THAT(message_of("{\"loss\":1}\n"), HasSubstr("found {\"loss\":1}"));
  EXPECT_THAT(message_of("{\"step\":-1}\n"), HasSubstr("integer `step`"));
  EXPECT_THAT(message_of("{\"step\":18446744073709551615}\n"), HasSubstr("integer `step`"));
  EXPECT_THAT(message_of("{\"step\":1.5}\n"), HasSubstr("integer `step`"));
  EXPECT_THAT(message_of("{\"step\":1,\"step\":2}\n"), HasSubstr("occurs twice"));
  EXPECT_THAT(message_of("{\"step\":1,\"a\":\"" + std::string(1 << 20, 'x') + "\"}\n"), HasSubstr("a line of 1048"));
}

TEST(RunLog, AnEventFileGivesTheFieldsOfMetrics) {
  const RunLog log = read_run_log(TEMPER_SOURCE_DIR "/tests/fixtures/events/events.out.tfevents.temper");
  ASSERT_EQ(log.at("loss").size(), 3);
  EXPECT_EQ(log.at("loss")[2].step, 300000);
  EXPECT_EQ(log.at("loss")[2].value, 1.25);
  EXPECT_EQ(log.at("eval_loss").size(), 1);
  EXPECT_EQ(log.at("grad_norm/experts").size(), 1) << "infinity is not a point";
}

TEST(RunLog, AMissingRunAndADirectoryWithoutLogAreTold) {
  EXPECT_THROW(read_run_log("/nowhere/run"), Error);
  try {
    read_run_log(TEMPER_SOURCE_DIR "/docs");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("neither metrics.jsonl nor a TensorBoard event file"));
  }
}

}  // namespace
}  // namespace temper::report
