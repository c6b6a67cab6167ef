#include "data/show.h"

#include "data/special_tokens.h"
#include "data/tokenizer_trainer.h"
#include "data_test_support.h"

namespace temper::data {
namespace {

class ShowTest : public DataTest {
 protected:
  static TokenizerSpec bytes_only() {
    const std::string_view text = "a";
    return train_tokenizer({&text, 1}, {.vocab_size = 271});
  }
  // The first example of a record, in thinking mode if asked.
  Example example(std::string_view record, ConversationMode mode = ConversationMode::kChat) {
    ReadOptions options;
    options.conversation.mode = mode;
    options.when_untrained = UntrainedExample::kKeep;
    ReadReport report;
    const auto examples = record_examples(read_record(write("x.jsonl", record), {}, 1), tokenizer_, options, report);
    EXPECT_EQ(examples.size(), 1u);
    return examples.at(0);
  }
  Tokenizer tokenizer_{bytes_only()};
};

constexpr const char* kThought = R"({"prompt": "a\nb", "completion": "<think>why</think>c[[d"})";

TEST_F(ShowTest, MarksWhatIsTrainedAndWhatIsSpecial) {
  EXPECT_EQ(show_tokens(example(kThought), tokenizer_, {}),
            "{<｜begin▁of▁sentence｜>}{<｜User｜>}a↵\nb{<｜Assistant｜>}{</think>}[[c[[d{<｜end▁of▁sentence｜>}]]\n");
  // The text of a special token is text.
  EXPECT_EQ(show_tokens(example(R"({"prompt": "<｜User｜>", "completion": "c"})"), tokenizer_, {}),
            "{<｜begin▁of▁sentence｜>}{<｜User｜>}<｜User｜>{<｜Assistant｜>}{</think>}[[c{<｜end▁of▁sentence｜>}]]\n");
}

TEST_F(ShowTest, JoinsTheBytesOfACharacterAndSpellsWhatActsOnATerminal) {
  const Example sample = example(R"({"prompt": "é\u001b[2J", "completion": "c"})");
  EXPECT_EQ(
      show_tokens(sample, tokenizer_, {}),
      "{<｜begin▁of▁sentence｜>}{<｜User｜>}é\\u{001B}[2J{<｜Assistant｜>}{</think>}[[c{<｜end▁of▁sentence｜>}]]\n");
  const std::string with_ids = show_tokens(sample, tokenizer_, {.ids = true});
  EXPECT_NE(with_ids.find("\\xC3("), std::string::npos) << with_ids;
  EXPECT_TRUE(with_ids.starts_with("{<｜begin▁of▁sentence｜>}(0){<｜User｜>}(3)")) << with_ids;
}

TEST_F(ShowTest, ShowsWhatTrainsNothing) {
  const Example sample = example(R"({"messages": [{"role": "user", "content": "a"}]})");
  EXPECT_EQ(show_tokens(sample, tokenizer_, {}), "{<｜begin▁of▁sentence｜>}{<｜User｜>}a{<｜Assistant｜>}{</think>}\n");
  EXPECT_EQ(count_tokens(sample, tokenizer_).num_trained, 0);
}

TEST_F(ShowTest, ColorsAreClosed) {
  const std::string text = show_tokens(example(kThought), tokenizer_, {.colors = true});
  EXPECT_TRUE(text.ends_with("\x1b[0m\n"));
  EXPECT_NE(text.find("\x1b[0;32mc[[d"), std::string::npos) << text;
  EXPECT_EQ(text.find("]]"), std::string::npos);
}

TEST_F(ShowTest, CountsReasoningApart) {
  // B U a \n b A <think> w h y </think> c [ [ d E
  const TokenCounts counts = count_tokens(example(kThought, ConversationMode::kThinking), tokenizer_);
  EXPECT_EQ(counts.num_tokens, 16);
  EXPECT_EQ(counts.num_trained, 9);
  EXPECT_EQ(counts.num_reasoning, 4);
  EXPECT_EQ(counts.num_prompt(), 7);
  EXPECT_EQ(counts.num_answer(), 5);
  EXPECT_EQ(count_tokens(example(kThought), tokenizer_).num_reasoning, 0);
}

TEST_F(ShowTest, ReadsARecordByItsNumber) {
  const auto path = write("x.jsonl", "not json\n\n{\"text\": \"b\"}\n");
  EXPECT_EQ(read_record(path, {}, 2).text, "b");
  expect_error(ErrorCode::kInvalidArgument, {"2 records", "no record 3"}, [&] { read_record(path, {}, 3); });
}

}  // namespace
}  // namespace temper::data
