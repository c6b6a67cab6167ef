// temper data lint, show and stats as a user runs them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "app/run_binary.h"
#include "base/file.h"
#include "base/scratch_dir.h"

namespace temper::test {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kSound =
    "{\"prompt\": \"one\", \"completion\": \"w ah n\"}\n"
    "{\"prompt\": \"two\", \"completion\": \"<think>t\\n</think>t uw\"}\n";

class DataCommands : public testing::Test {
 protected:
  std::string tokenizer() {
    const RunResult result = run_temper(
        {"data", "train-tokenizer", directory_.write("t.jsonl", kSound), "--vocab-size", "275", "--out", path("tok")});
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return path("tok");
  }
  std::string path(const std::string& name) const { return (directory_.path() / name).string(); }
  ScratchDir directory_;
};

TEST_F(DataCommands, LintPassesSoundData) {
  const RunResult result = run_temper({"data", "lint", directory_.write("x.jsonl", kSound)});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("2 records of 1 files"));
  EXPECT_THAT(result.output, HasSubstr("0 errors, 0 warnings"));
}

TEST_F(DataCommands, LintRefusesWhatWouldTrainNonsense) {
  const std::string file =
      directory_.write("x.jsonl", std::string(kSound) + "{\"prompt\": \"a\", \"completion\": \"\"}\n");
  const RunResult result = run_temper({"data", "lint", file, "--json", path("lint.json")});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr(file + ":3: error: empty-answer: "));
  EXPECT_THAT(result.output, HasSubstr("leave the turn out"));
  const auto json = nlohmann::json::parse(read_file(path("lint.json")));
  EXPECT_EQ(json.at("rules").at("empty-answer").at("errors"), 1);
  EXPECT_EQ(json.at("findings").size(), 1u);
  EXPECT_EQ(json.at("findings")[0].at("file"), file);
  EXPECT_EQ(json.at("findings")[0].at("line"), 3);
}

TEST_F(DataCommands, LintPrintsSoManyFindingsOfARule) {
  std::string lines;
  for (int i = 0; i < 5; ++i) lines += "{\"text\": \"same\"}\n";
  const RunResult result = run_temper({"data", "lint", directory_.write("x.jsonl", lines), "--max-findings", "2"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr("x.jsonl:3: error: duplicate"));
  EXPECT_THAT(result.output, Not(HasSubstr("x.jsonl:4: error: duplicate")));
  EXPECT_THAT(result.output, HasSubstr("4 errors"));
}

TEST_F(DataCommands, ShowPrintsASampleWithMarksInAPipe) {
  const std::string file = directory_.write("x.jsonl", kSound);
  const RunResult result = run_temper({"data", "show", file, "--tokenizer", tokenizer(), "--sample", "2"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr(file + ":2: prompt-completion, chat mode, 1 example"));
  EXPECT_THAT(result.output, HasSubstr("{<｜User｜>}two{<｜Assistant｜>}{</think>}[[t uw{<｜end▁of▁sentence｜>}]]"));
  const RunResult thinking =
      run_temper({"data", "show", file, "--tokenizer", path("tok"), "--sample", "2", "--mode", "thinking", "--ids"});
  EXPECT_THAT(thinking.output, HasSubstr("{<think>}(5)[["));
  EXPECT_EQ(run_temper({"data", "show", file}).exit_code, 2);  // no tokenizer
  EXPECT_THAT(run_temper({"data", "show", file, "--tokenizer", path("tok"), "--sample", "3"}).output,
              HasSubstr("2 records; there is no record 3"));
}

TEST_F(DataCommands, StatsCountByRole) {
  const RunResult result = run_temper({"data", "stats", directory_.write("x.jsonl", kSound), "--tokenizer", tokenizer(),
                                       "--mode", "thinking", "--max-tokens", "9"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("2 records, 2 examples, 0 records without a trained token"));
  EXPECT_THAT(result.output, HasSubstr(" 3 reasoning, "));  // </think>, and t </think>
  EXPECT_THAT(result.output, HasSubstr("p50 "));
  EXPECT_THAT(result.output, HasSubstr("longer than 9 tokens: 2 examples"));
}

}  // namespace
}  // namespace temper::test
