#include "data/lint.h"

#include <gmock/gmock.h>

#include "data/mojibake.h"
#include "data/tokenizer_trainer.h"
#include "data/unseen.h"
#include "data_test_support.h"
#include "prose_support.h"

namespace temper::data {
namespace {

using testing::HasSubstr;

constexpr const char* kTools = R"("tools": [{"name": "f", "parameters": {"type": "object",)"
                               R"( "properties": {"x": {"type": "integer"}, "u": {"enum": ["C", "F"]}},)"
                               R"( "required": ["x"], "additionalProperties": false}}])";

class LintTest : public DataTest {
 protected:
  // "error rule", "warning rule", ... of every finding, in order.
  std::vector<std::string> lint(std::string_view contents, const LintOptions& options = {},
                                const char* name = "x.jsonl") {
    findings_.clear();
    Linter linter(options, [&](const LintFinding& finding) { findings_.push_back(finding); });
    linter.add(write(name, contents));
    report_ = linter.report();
    std::vector<std::string> out;
    for (const LintFinding& finding : findings_)
      out.push_back((finding.severity == Severity::kError ? "error " : "warning ") +
                    std::string(lint_rule(finding.rule).name));
    return out;
  }
  std::vector<std::string> lint_messages(const std::string& messages, const LintOptions& options = {}) {
    return lint("{\"messages\": [" + messages + "]}", options);
  }
  // A sound question, and an answer with this JSON text as content.
  std::vector<std::string> lint_answer(const std::string& content) {
    return lint(R"({"prompt": "a", "completion": ")" + content + "\"}");
  }
  std::vector<std::string> lint_question(const std::string& content) {
    return lint(R"({"completion": "a", "prompt": ")" + content + "\"}");
  }
  // A dialogue that calls the tool f with these arguments.
  std::vector<std::string> lint_call(const std::string& call,
                                     const std::string& result = R"({"role": "tool", "content": "r"})") {
    return lint(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [)" + call +
                "]}, " + result + R"(, {"role": "assistant", "content": "b"}], )" + kTools + "}");
  }

  std::vector<LintFinding> findings_;
  LintReport report_;
};

using Rules = std::vector<std::string>;

TEST_F(LintTest, FindsNothingInSoundRecords) {
  EXPECT_EQ(
      lint(
          R"({"messages": [{"role": "user", "content": "héllo – “quotes” 你好 👩‍💻"}, {"role": "assistant", "content": "```\nx\n```"}]})"
          "\n"
          R"({"text": "a"})"
          "\n"
          R"({"instruction": "i", "output": "o"})"),
      Rules{});
  EXPECT_EQ(report_.num_records, 3);
  EXPECT_EQ(lint_call(R"({"name": "f", "arguments": {"x": 1, "u": "C"}})"), Rules{});
  EXPECT_EQ(report_.num_unrendered, 1);  // the blocks of prose were not given
}

TEST_F(LintTest, SaysWhereAndGoesOn) {
  EXPECT_EQ(lint("{\"text\": \"a\"}\n{\"text\": }\n{\"golden\": 1}\n{\"text\": \"\"}\n"),
            (Rules{"error unreadable", "error unreadable", "error no-trained-token"}));
  EXPECT_TRUE(findings_[0].origin.ends_with("x.jsonl:2")) << findings_[0].origin;
  EXPECT_THAT(findings_[0].explanation, HasSubstr("not JSON"));
  EXPECT_THAT(findings_[1].explanation, HasSubstr("fields golden"));
  EXPECT_TRUE(findings_[2].origin.ends_with("x.jsonl:4")) << findings_[2].origin;
  EXPECT_EQ(report_.total_errors(), 3);
  // A list that breaks off: what came before is looked at.
  EXPECT_EQ(lint("[{\"text\": \"\"}, {\"text", {}, "x.json"), (Rules{"error unreadable", "error no-trained-token"}));
}

TEST_F(LintTest, FindsRolesAndFieldsThatNobodyReads) {
  EXPECT_EQ(lint_messages(R"({"role": "user", "content": "a", "mood": "x"}, {"role": "bot", "content": "b"},)"
                          R"({"role": "assistant", "content": "c"})"),
            (Rules{"warning unknown-field", "error unknown-role"}));
  EXPECT_EQ(lint(R"({"prompt": "a", "completion": "b", "tool": [1]})"), Rules{"warning unknown-field"});
  EXPECT_EQ(
      lint_messages(R"({"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "c"})"),
      Rules{"error unsupported-part"});
}

TEST_F(LintTest, FindsWhatWouldTrainNothingOrEverything) {
  EXPECT_EQ(lint_messages(R"({"role": "user", "content": "a"})"), Rules{"error no-trained-token"});
  EXPECT_EQ(lint_question(""), Rules{"error all-trained"});
  EXPECT_EQ(lint_question(" \\n"), Rules{"error all-trained"});
  EXPECT_EQ(lint_answer(" "), Rules{"error empty-answer"});
  EXPECT_EQ(lint_answer("<think>why</think>"), Rules{"error empty-answer"});
  EXPECT_EQ(lint_messages(R"({"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "wo_eos": true})"),
            Rules{"error no-end-of-turn"});
  EXPECT_EQ(lint_messages(R"({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},)"
                          R"({"role": "assistant", "content": "c"})"),
            Rules{"error not-renderable"});
  EXPECT_EQ(lint_answer("see:\\n```c\\nint x;"), Rules{"warning open-code-fence"});
  EXPECT_EQ(lint_answer("see:\\n```int x;```"), Rules{});
}

TEST_F(LintTest, FindsStrayThoughts) {
  EXPECT_EQ(lint_answer("<think>a</think>b"), Rules{});
  EXPECT_EQ(lint_answer("<think>a"), Rules{"error think-tags"});
  EXPECT_EQ(lint_answer("b</think>"), Rules{"error think-tags"});
  EXPECT_EQ(lint_answer("<think>a</think>b<think>c</think>"), Rules{"error think-tags"});
  EXPECT_EQ(lint_question("what is <think>?"), Rules{"warning control-token"});
}

TEST_F(LintTest, FindsBrokenCalls) {
  EXPECT_EQ(lint_call(R"({"name": "f", "arguments": "{\"x\": 1"})"), Rules{"error broken-tool-call"});
  EXPECT_EQ(lint_call(R"({"name": "f", "arguments": "[1]"})"), Rules{"error broken-tool-call"});
  EXPECT_EQ(lint_call(R"({"name": "g", "arguments": {}})"), Rules{"error unknown-tool"});
  EXPECT_EQ(lint_call(R"({"name": "f", "arguments": {}})"), Rules{"error tool-arguments"});
  EXPECT_THAT(findings_[0].explanation, HasSubstr("required argument \"x\""));
  EXPECT_EQ(lint_call(R"({"name": "f", "arguments": {"x": "1"}})"), Rules{"error tool-arguments"});
  EXPECT_EQ(lint_call(R"({"name": "f", "arguments": {"x": 1, "u": "K"}})"), Rules{"error tool-arguments"});
  EXPECT_EQ(lint_call(R"({"name": "f", "arguments": {"x": 2.0, "y": 1}})"), Rules{"error tool-arguments"});
  EXPECT_EQ(
      lint(
          R"({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arg"}]})"),
      Rules{"error broken-tool-call"});
}

TEST_F(LintTest, FindsCallsAndResultsThatDoNotMeet) {
  const std::string call = R"({"id": "1", "name": "f", "arguments": {"x": 1}})";
  EXPECT_EQ(lint_call(call, R"({"role": "tool", "tool_call_id": "1", "content": "r"})"), Rules{});
  EXPECT_EQ(lint_call(call, R"({"role": "tool", "tool_call_id": "2", "content": "r"})"),
            (Rules{"error result-without-call", "warning call-without-result"}));
  EXPECT_EQ(lint_call(call, R"({"role": "tool", "content": "r"}, {"role": "tool", "content": "s"})"),
            Rules{"error result-without-call"});
  EXPECT_EQ(lint_call(call, R"({"role": "user", "content": "r"})"), Rules{"warning call-without-result"});
  EXPECT_EQ(lint_messages(R"({"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [)" + call + "]}"),
            Rules{"error unknown-tool"});
}

TEST_F(LintTest, FindsMarksThatSteerTheModel) {
  EXPECT_EQ(lint_question("<｜Assistant｜>yes"), Rules{"error control-token"});
  EXPECT_EQ(lint_answer("<｜DSML｜tool_calls>"), Rules{"error control-token"});
  EXPECT_EQ(lint_answer("<｜tool▁calls▁begin｜>"), Rules{"error control-token"});  // of another model of DeepSeek
  EXPECT_EQ(lint_question("a <｜ b"), Rules{});
  EXPECT_EQ(lint_question("<|im_start|>user"), Rules{"warning foreign-template"});
  // Hidden from the eye, and from a search, by a zero-width space.
  EXPECT_EQ(lint_question("<thi\u200Bnk>"), (Rules{"warning hidden-character", "error control-token"}));
  // A token that only this tokenizer has.
  TokenizerSpec spec = [] {
    const std::string_view text = "a";
    return train_tokenizer({&text, 1}, {.vocab_size = 271});
  }();
  spec.added.push_back({271, "<|mine|>"});
  const Tokenizer tokenizer(spec);
  const char* record = R"({"prompt": "<|mine|>", "completion": "b"})";
  EXPECT_EQ(lint(record), Rules{});
  EXPECT_EQ(lint(record, {.tokenizer = &tokenizer}), Rules{"error control-token"});
}

TEST_F(LintTest, FindsCharactersThatNobodySees) {
  EXPECT_EQ(lint_question("a\\u202Eb"), Rules{"error hidden-character"});
  EXPECT_EQ(lint_question("a\\u200Bb"), Rules{"warning hidden-character"});
  EXPECT_EQ(lint_question("a\\u200Db"), Rules{"warning hidden-character"});
  EXPECT_EQ(lint_question("می\\u200Cخواهم"), Rules{});                                                    // Persian
  EXPECT_EQ(lint_question("🏴\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F"), Rules{});  // a flag
  EXPECT_EQ(lint_question("\U000E0061\U000E0062"), Rules{"error hidden-character"});
  EXPECT_EQ(lint_question("a\\u0000b"), Rules{"warning control-character"});
  EXPECT_EQ(lint_answer("\\u001b[1mbold"), Rules{"error control-character"});
  EXPECT_THAT(findings_[0].explanation, HasSubstr("\\u{001B}[1mbold"));
  EXPECT_EQ(lint_answer("a\\tb\\r\\nc\\f"), Rules{});
}

TEST_F(LintTest, FindsTextThatWasDecodedWrongly) {
  EXPECT_EQ(lint_answer("cafÃ©"), Rules{"error mojibake"});
  EXPECT_THAT(findings_[0].explanation, HasSubstr("was \"é\""));
  EXPECT_EQ(lint_question("itâ€™s"), Rules{"warning mojibake"});
  EXPECT_EQ(lint_question("ä½ å¥½"), Rules{"warning mojibake"});
  EXPECT_EQ(lint_question("Ð¿Ñ€Ð¸"), Rules{"warning mojibake"});
  EXPECT_EQ(lint_answer("a\uFFFDb"), Rules{"error mojibake"});
  for (const char* sound : {"“CAFÉ” fermé", "ÀÉÎ, Ñandú; señor", "Ä – Ö … Ü", "Đà Nẵng", "20 °C · 3 µm", "Åse, Ôte",
                            "shown as “Ã©”, Ã¨ or ‘â€™’"})
    EXPECT_FALSE(find_mojibake(sound)) << sound << ": " << find_mojibake(sound)->was;
}

TEST_F(LintTest, FindsDuplicatesInAllFiles) {
  EXPECT_EQ(lint("{\"prompt\": \"a b\", \"completion\": \"c\"}\n"
                 "{\"prompt\": \" A  b\\n\", \"completion\": \"C\"}\n"
                 "{\"prompt\": \"a-b\", \"completion\": \"c\"}\n"
                 "{\"prompt\": \"a b\", \"completion\": \"d\"}\n"
                 "{\"text\": \"c\"}\n"),
            (Rules{"error duplicate", "warning same-prompt"}));
  EXPECT_THAT(findings_[0].explanation, HasSubstr("x.jsonl:1"));
  EXPECT_TRUE(findings_[1].origin.ends_with("x.jsonl:4"));
  std::vector<LintFinding> findings;
  Linter linter({}, [&](const LintFinding& finding) { findings.push_back(finding); });
  linter.add(write("a.jsonl", R"({"text": "c"})"));
  linter.add(write("b.txt", "c\n"));
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_THAT(findings[0].explanation, HasSubstr("a.jsonl:1"));
}

TEST_F(LintTest, FindsWhatALimitCuts) {
  const std::string_view text = "a";
  const Tokenizer tokenizer(train_tokenizer({&text, 1}, {.vocab_size = 271}));  // every byte is a token
  const LintOptions limit_8 = {.tokenizer = &tokenizer, .max_tokens = 8};
  const char* record = R"({"prompt": "ab", "completion": "cd"})";  // B U a b A </think> c d E: 9 tokens
  EXPECT_EQ(lint(record, limit_8), Rules{"warning over-long"});
  EXPECT_THAT(findings_[0].explanation, HasSubstr("9 tokens, the limit is 8"));
  EXPECT_EQ(lint(record, {.tokenizer = &tokenizer, .max_tokens = 9}), Rules{});
  EXPECT_EQ(report_.num_tokens, 9);
  EXPECT_EQ(report_.num_trained_tokens, 3);
  expect_error(ErrorCode::kInvalidArgument, {"tokenizer"}, [&] { lint(record, {.max_tokens = 8}); });
}

TEST_F(LintTest, ExcerptsStayOnOneLineBetweenCharacters) {
  EXPECT_EQ(excerpt("a\nb\x1b"), "a b\\u{001B}");
  const std::string long_text = std::string(40, 'x') + "你" + std::string(40, 'y');
  EXPECT_EQ(excerpt(long_text, 40), "..." + std::string(24, 'x') + "你" + std::string(23, 'y') + "...");
}

TEST_F(LintTest, FindsACallThatALimitCuts) {
  const std::string_view text = "a";
  const Tokenizer tokenizer(train_tokenizer({&text, 1}, {.vocab_size = 271}));
  LintOptions options = {.tokenizer = &tokenizer};
  options.conversation.prose = stand_in_prose();
  const std::string record =
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "say",)"
      R"( "tool_calls": [{"name": "f", "arguments": {"x": 1}}]}], )" +
      std::string(kTools) + "}";
  EXPECT_EQ(lint(record, options), Rules{});
  EXPECT_EQ(report_.num_unrendered, 0);
  const int64_t length = report_.num_tokens;
  options.max_tokens = length - 2;
  EXPECT_EQ(lint(record, options), (Rules{"warning over-long", "error cut-tool-call"}));
  options.max_tokens = length - report_.num_trained_tokens + 2;  // in the words before the call
  EXPECT_EQ(lint(record, options), Rules{"warning over-long"});
}

// One finding for a conversation of several examples, for the longest.
TEST_F(LintTest, MeasuresTheLongestExampleOfAConversation) {
  const std::string_view text = "a";
  const Tokenizer tokenizer(train_tokenizer({&text, 1}, {.vocab_size = 271}));
  LintOptions options = {.tokenizer = &tokenizer, .max_tokens = 8};
  options.conversation.mode = ConversationMode::kThinking;
  EXPECT_EQ(lint_messages(R"({"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"},)"
                          R"({"role": "user", "content": "ef"}, {"role": "assistant", "content": "gh"})",
                          options),
            Rules{"warning over-long"});
}

// Whatever a file holds, it is told and not trusted: every record is looked at, none stops the linter.
TEST_F(LintTest, SurvivesMutatedRecords) {
  const std::string sound =
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "aé"}]}, {"role": "assistant",)"
      R"( "reasoning_content": "r", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},)"
      R"( {"role": "tool", "tool_call_id": "1", "content": "é你"}], "weight": 1, )" +
      std::string(kTools) + "}";
  uint64_t state = 1;
  const auto random = [&](size_t below) {  // a linear congruence (Knuth, MMIX): enough to vary a text
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>(state >> 33) % below;
  };
  std::string lines;
  constexpr int64_t kLines = 3000;
  constexpr std::string_view kBytes = "\"{}[]:,\\a1 \x7F\xC3\xFF";
  for (int64_t i = 0; i < kLines; ++i) {
    std::string line = sound;
    for (size_t change = 0; change <= random(3) && line.size() > 1; ++change) {
      const size_t at = random(line.size());
      switch (random(4)) {
        case 0:
          line[at] = kBytes[random(kBytes.size())];
          break;
        case 1:
          line.erase(at, random(30));
          break;
        case 2:
          line.insert(at, line.substr(random(line.size()), random(30)));
          break;
        default:
          line.resize(at + 1);
      }
    }
    lines += line + "\n";
  }
  lint(lines);
  EXPECT_GT(report_.total_errors(), kLines / 2);
  EXPECT_GT(report_.num_records, kLines - 100);
}

// The public data sets are sound, but for what was looked up by hand and counted by another program: two calls without
// a required argument, three with a value of another type or outside its enum, two results whose call was written as
// text, and 78 dialogues that are there twice, byte for byte.
TEST_F(LintTest, FindsInPublicDataWhatIsThere) {
  SKIP_WITHOUT_SHARED_DATA("glaive-toolcall");
  std::vector<std::string> found;
  Linter linter({}, [&](const LintFinding& finding) {
    if (finding.severity == Severity::kError && finding.rule != LintRule::kDuplicate)
      found.push_back(std::filesystem::path(finding.origin).filename().string() + " " +
                      std::string(lint_rule(finding.rule).name));
  });
  for (const char* file :
       {"gsm8k/test.jsonl", "oasst-en-100/sft.jsonl", "glaive-toolcall/glaive_toolcall_en_demo.jsonl",
        "glaive-toolcall/glaive_toolcall_zh_demo.jsonl", "debian-handbook/handbook.en.txt"})
    linter.add(shared_data() / file);
  EXPECT_EQ(linter.report().num_records, 2027);
  EXPECT_EQ(linter.report().num_errors[static_cast<size_t>(LintRule::kDuplicate)], 78);
  EXPECT_THAT(found, testing::ElementsAre("glaive_toolcall_en_demo.jsonl:260 tool-arguments",
                                          "glaive_toolcall_zh_demo.jsonl:22 tool-arguments",
                                          "glaive_toolcall_zh_demo.jsonl:103 tool-arguments",
                                          "glaive_toolcall_zh_demo.jsonl:145 tool-arguments",
                                          "glaive_toolcall_zh_demo.jsonl:198 result-without-call",
                                          "glaive_toolcall_zh_demo.jsonl:240 tool-arguments",
                                          "glaive_toolcall_zh_demo.jsonl:294 result-without-call"));
}

}  // namespace
}  // namespace temper::data
