#include "data/reader.h"

#include "data/special_tokens.h"
#include "data/tokenizer_trainer.h"
#include "data_test_support.h"

namespace temper::data {
namespace {

// Every byte is a token of its own, so lengths can be counted by eye.
class ReaderTest : public DataTest {
 protected:
  ReaderTest() : tokenizer_(bytes_only()) {}
  static TokenizerSpec bytes_only() {
    const std::string_view text = "a";
    return train_tokenizer({&text, 1}, {.vocab_size = 271});
  }
  std::vector<Example> read(std::string_view contents, const ReadOptions& options = {}, const char* name = "x.jsonl") {
    report_ = {};
    const std::filesystem::path path = write(name, contents);
    return read_examples({&path, 1}, tokenizer_, options, report_);
  }
  void refused(ErrorCode code, std::initializer_list<std::string_view> parts, std::string_view contents,
               const ReadOptions& options = {}, const char* name = "x.jsonl") {
    expect_error(code, parts, [&] { read(contents, options, name); });
  }
  Tokenizer tokenizer_;
  ReadReport report_;
};

constexpr const char* kTalk =
    R"({"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}], "weight": 0.5})"
    "\n";

TEST_F(ReaderTest, ReadsMessages) {
  const auto examples = read(std::string("\xEF\xBB\xBF\n  \r\n") + kTalk);
  ASSERT_EQ(examples.size(), 1u);
  EXPECT_EQ(examples[0].tokens.size(), 9u);  // B U a b A </think> c d E
  EXPECT_EQ(examples[0].trained, (std::vector<uint8_t>{0, 0, 0, 0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(examples[0].weight, 0.5f);
  EXPECT_TRUE(examples[0].origin.ends_with("x.jsonl:3")) << examples[0].origin;
  EXPECT_EQ(report_.num_trained_tokens, 3);
  EXPECT_EQ(report_.longest, 9);
}

TEST_F(ReaderTest, ReadsPromptAndCompletion) {
  const char* strings = R"({"prompt": "ab", "completion": "cd"})";
  EXPECT_EQ(read(strings)[0].tokens, read(kTalk)[0].tokens);
  const auto raw = read(strings, {.format = PromptFormat::kRaw});
  EXPECT_EQ(tokenizer_.decode(raw[0].tokens), std::string(kBos) + "abcd" + std::string(kEos));
  EXPECT_EQ(raw[0].trained, (std::vector<uint8_t>{0, 0, 0, 1, 1, 1}));
  // Loss on the completion only, though the prompt has an answer of the assistant too.
  const auto lists =
      read(R"({"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, )"
           R"({"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]})");
  EXPECT_EQ(lists[0].trained, (std::vector<uint8_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}));
}

TEST_F(ReaderTest, CutsTextSoThatEveryTokenIsPredictedOnce) {
  // B a b c d e f E in documents of 4: B a b c | c d e f | f E
  const auto examples = read(R"({"text": "abcdef"})", {.max_tokens = 100, .max_document = 4});
  ASSERT_EQ(examples.size(), 3u);
  EXPECT_EQ(tokenizer_.decode(examples[0].tokens), std::string(kBos) + "abc");
  EXPECT_EQ(tokenizer_.decode(examples[1].tokens), "cdef");
  EXPECT_EQ(tokenizer_.decode(examples[2].tokens), "f" + std::string(kEos));
  for (const Example& example : examples) EXPECT_EQ(example.trained[0], 0);
  EXPECT_EQ(report_.num_trained_tokens, 7);
  // B a b c d e E ends with a full document: no piece that only repeats a token.
  EXPECT_EQ(read(R"({"text": "abcde"})", {.max_document = 4}).size(), 2u);
  EXPECT_EQ(read("abcdef\n\nghi", {.max_tokens = 5}, "x.txt").size(), 3u);
}

TEST_F(ReaderTest, ExpandsReasoningByTurn) {
  const char* talk =
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "rr"},)"
      R"( {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "reasoning_content": "s"}]})";
  const ReadOptions thinking = {.conversation = {.mode = ConversationMode::kThinking}};
  const auto examples = read(std::string(talk) + "\n" + kTalk, thinking);
  ASSERT_EQ(examples.size(), 3u);
  const std::string before = std::string(kBos) + "<｜User｜>a<｜Assistant｜>", end(kEos);
  EXPECT_EQ(tokenizer_.decode(examples[0].tokens), before + "<think>rr</think>b" + end);
  EXPECT_EQ(tokenizer_.decode(examples[1].tokens),
            before + "</think>b" + end + "<｜User｜>c<｜Assistant｜><think>s</think>d" + end);
  EXPECT_EQ(examples[0].origin, examples[1].origin);
  EXPECT_EQ(report_.num_records, 2);
  EXPECT_EQ(report_.num_expanded, 1);
  EXPECT_EQ(report_.num_examples, 3);
  EXPECT_EQ(report_.num_trained_tokens, 5 + 4 + 4);
  EXPECT_EQ(read(talk).size(), 1u);
  EXPECT_EQ(report_.num_expanded, 0);
  // Each is cut or dropped on its own: the first has 11 tokens, the second 15.
  EXPECT_EQ(
      read(talk, {.conversation = thinking.conversation, .max_tokens = 12, .when_long = LongExample::kDrop}).size(),
      1u);
  EXPECT_EQ(report_.num_dropped_long, 1);
}

TEST_F(ReaderTest, CutsOrDropsLongConversations) {
  const auto cut = read(kTalk, {.max_tokens = 8});
  ASSERT_EQ(cut.size(), 1u);
  EXPECT_EQ(cut[0].tokens.size(), 8u);
  EXPECT_EQ(report_.num_cut, 1);
  EXPECT_EQ(report_.longest, 9);
  EXPECT_TRUE(read(kTalk, {.max_tokens = 6}).empty());  // nothing trained is left
  EXPECT_EQ(report_.num_dropped_long, 1);
  EXPECT_TRUE(read(kTalk, {.max_tokens = 8, .when_long = LongExample::kDrop}).empty());
  EXPECT_EQ(report_.num_dropped_long, 1);
  EXPECT_EQ(report_.num_cut, 0);
}

TEST_F(ReaderTest, ErrorOrDropWithoutTrainedTokens) {
  const std::string question = R"({"messages": [{"role": "user", "content": "ab"}]})"
                               "\n";
  refused(ErrorCode::kInvalidArgument, {"x.jsonl:2:1", "no token"}, kTalk + question);
  refused(ErrorCode::kInvalidArgument, {"x.jsonl:1:1", "text is empty"}, R"({"text": ""})");
  EXPECT_EQ(read(kTalk + question + R"({"text": ""})", {.when_untrained = UntrainedExample::kDrop}).size(), 1u);
  EXPECT_EQ(report_.num_dropped_untrained, 2);
  EXPECT_EQ(report_.num_records, 3);
}

TEST_F(ReaderTest, NamesFileLineAndColumn) {
  const auto corrupt = ErrorCode::kCorrupt, invalid = ErrorCode::kInvalidArgument;
  refused(corrupt, {"x.jsonl:2:15", "not JSON"}, std::string(kTalk) + R"({"messages": [}])");
  refused(corrupt, {"x.jsonl:1:", "not JSON"}, R"({"text": "abc)");
  refused(corrupt, {"x.jsonl:1:", "not JSON"}, "{\"text\": \"a\xff\"}");
  refused(corrupt, {"x.jsonl:1:", "not JSON"}, std::string(5000, '['));
  refused(corrupt, {"x.jsonl:1:1", "not a JSON object"}, "[1, 2]");
  refused(corrupt, {"x.txt:2:3", "UTF-8"}, "ab\ncd\xff", {}, "x.txt");
  refused(invalid, {"x.jsonl:1:1", "no known format"}, R"({"chosen": "a"})");
  refused(invalid, {"no known format", "prompt, completion"}, R"({"prompt": "a"})");
  refused(invalid, {"\"messages\" is empty"}, R"({"messages": []})");
  refused(invalid, {"not a list"}, R"({"messages": "hi"})");
  refused(invalid, {"message 0 is not an object"}, R"({"messages": ["hi"]})");
  refused(invalid, {"message 0 has no \"role\""}, R"({"messages": [{"content": "hi"}]})");
  refused(invalid, {"message 0 has no \"content\""}, R"({"messages": [{"role": "user"}]})");
  refused(invalid, {"\"content\" is not a string"}, R"({"messages": [{"role": "user", "content": 3}]})");
  refused(invalid, {"empty message of the assistant"},
          R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]})");
  refused(invalid, {"both be strings"}, R"({"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]})");
  refused(invalid, {"raw format"},
          R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})",
          {.format = PromptFormat::kRaw});
  refused(invalid, {"completion is empty"}, R"({"prompt": "a", "completion": ""})", {.format = PromptFormat::kRaw});
  refused(invalid, {"weight"}, R"({"text": "a", "weight": -1})");
  refused(invalid, {"weight"}, R"({"text": "a", "weight": "2"})");
}

TEST_F(ReaderTest, RefusesByNameWhatIsNotRendered) {
  const auto unsupported = ErrorCode::kUnsupported;
  refused(unsupported, {"x.csv", ".jsonl"}, "a,b", {}, "x.csv");
  EXPECT_EQ(read(R"({"tools": [], "prompt": "a", "completion": "b"})").size(), 1u);
}

TEST_F(ReaderTest, RefusesAVocabularyLargerThanTheModels) {
  refused(ErrorCode::kInvalidArgument, {"271", "270"}, kTalk, {.model_vocab_size = 270});
  EXPECT_EQ(read(kTalk, {.model_vocab_size = 271}).size(), 1u);
  refused(ErrorCode::kInvalidArgument, {"1 tokens"}, kTalk, {.max_tokens = 1});
  ReadReport report;
  const std::filesystem::path missing = folder_ / "missing.jsonl";
  expect_error(ErrorCode::kNotFound, {"missing.jsonl"}, [&] { read_examples({&missing, 1}, tokenizer_, {}, report); });
}

}  // namespace
}  // namespace temper::data
