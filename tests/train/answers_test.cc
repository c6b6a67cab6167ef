#include "train/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/scratch_dir.h"

namespace temper::train {
namespace {

TEST(WordEdits, CountsInsertionsDeletionsAndSubstitutions) {
  EXPECT_EQ(word_edits("", ""), 0);
  EXPECT_EQ(word_edits("aa r d", "aa r d"), 0);
  EXPECT_EQ(word_edits("aa r", "aa r d"), 1);
  EXPECT_EQ(word_edits("x aa r d", "aa r d"), 1);
  EXPECT_EQ(word_edits("aa t d", "aa r d"), 1);
  EXPECT_EQ(word_edits("", "aa r d"), 3);
  EXPECT_EQ(word_edits("a b c d", "b c d e"), 2);       // shifted by one: a goes, e comes
  EXPECT_EQ(word_edits("k ih t n", "s ih t ng g"), 3);  // words, not letters
}

TEST(AnswerScore, AddsUpOverQuestions) {
  AnswerScore score;
  EXPECT_EQ(score.exact_match(), 0);
  EXPECT_EQ(score.error_rate(), 0);
  add_to_score(score, "b l ay", " b l ay\n");
  add_to_score(score, "b aa k s", "b ao k");
  EXPECT_EQ(score.num_questions, 2);
  EXPECT_EQ(score.num_exact, 1);
  EXPECT_DOUBLE_EQ(score.exact_match(), 0.5);
  EXPECT_DOUBLE_EQ(score.error_rate(), 2.0 / 7);
}

class ReadQuestions : public testing::Test {
 protected:
  std::vector<Question> read(const std::string& lines, int64_t max_count = 0) {
    const std::vector<std::filesystem::path> files = {folder_.write("questions.jsonl", lines)};
    return read_questions(files, max_count);
  }
  const test::ScratchDir folder_;
};

TEST_F(ReadQuestions, SplitsTheLastAnswerOff) {
  const auto questions = read(
      "{\"prompt\": \"bly\", \"completion\": \"b l ay\"}\n"
      "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"u\"}, "
      "{\"role\": \"assistant\", \"content\": \"a\"}]}\n");
  ASSERT_EQ(questions.size(), 2u);
  EXPECT_EQ(questions[0].expected, "b l ay");
  ASSERT_EQ(questions[0].messages.size(), 1u);
  EXPECT_EQ(questions[0].messages[0].content, "bly");
  EXPECT_EQ(questions[1].messages.size(), 2u);
  EXPECT_EQ(questions[1].expected, "a");
  EXPECT_EQ(read("{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"c\", \"completion\": \"d\"}\n", 1).size(),
            1u);
}

TEST_F(ReadQuestions, RefusesWhatHasNoAnswer) {
  const auto message_of = [&](const std::string& lines) {
    try {
      read(lines);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  const std::string good = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
  EXPECT_THAT(message_of(good + "{\"text\": \"a\"}\n"), testing::HasSubstr("questions.jsonl:2"));
  EXPECT_THAT(message_of(good + "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}]}\n"),
              testing::HasSubstr("questions.jsonl:2"));
}

}  // namespace
}  // namespace temper::train
