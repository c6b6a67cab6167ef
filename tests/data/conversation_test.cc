#include "data/conversation.h"

#include <nlohmann/json.hpp>

#include "data/special_tokens.h"
#include "data/tokenizer_trainer.h"
#include "data_test_support.h"

namespace temper::data {
namespace {

constexpr const char* kOrigin = "talk.jsonl:7";

Message message(std::string role, std::string content, std::string reasoning = "") {
  Message out;
  out.role = std::move(role), out.content = std::move(content), out.reasoning_content = std::move(reasoning);
  return out;
}

// The rendering with short names for the tokens of the worked examples, trained stretches in [brackets].
std::string shown(const std::vector<Message>& messages, const ConversationOptions& options = {},
                  size_t num_untrained = 0) {
  std::string out;
  bool trained = false;
  for (const ConversationSpan& span : render_conversation(messages, options, kOrigin, num_untrained)) {
    if (span.trained != trained) out += span.trained ? "[" : "]";
    trained = span.trained;
    const std::string& text = span.text;
    out += !span.is_special     ? text
           : text == kBos       ? "B "
           : text == kEos       ? " E"
           : text == kUser      ? " U "
           : text == kAssistant ? " A "
                                : text;
  }
  return out + (trained ? "]" : "");
}

const std::vector<Message> kTalk = {message("system", "S"), message("user", "U1"), message("assistant", "A1", "R1"),
                                    message("user", "U2"), message("assistant", "A2", "R2")};
const ConversationOptions kThinking = {.mode = ConversationMode::kThinking};

TEST(Conversation, WorkedExamplesOfTheArchitecturePage) {
  EXPECT_EQ(shown(kTalk), "B S U U1 A </think>[A1 E] U U2 A </think>[A2 E]");
  EXPECT_EQ(shown(kTalk, kThinking), "B S U U1 A </think>[A1 E] U U2 A <think>[R2</think>A2 E]");
  ConversationOptions keep_all = kThinking;
  keep_all.drop_thinking = false;
  EXPECT_EQ(shown(kTalk, keep_all), "B S U U1 A <think>[R1</think>A1 E] U U2 A <think>[R2</think>A2 E]");
  const std::vector<Message> prompt(kTalk.begin(), kTalk.end() - 1);
  EXPECT_EQ(shown(prompt), "B S U U1 A </think>[A1 E] U U2 A </think>");
  EXPECT_EQ(shown(prompt, kThinking), "B S U U1 A </think>[A1 E] U U2 A <think>");
}

TEST(Conversation, TrainsOnlyWhatIsAsked) {
  EXPECT_EQ(shown(kTalk, {.train_on_history = false}), "B S U U1 A </think>A1 E U U2 A </think>[A2 E]");
  EXPECT_EQ(shown(kTalk, {}, 3), "B S U U1 A </think>A1 E U U2 A </think>[A2 E]");
}

TEST(Conversation, DeveloperAndReminder) {
  const std::vector<Message> messages = {message("latest_reminder", "L"), message("developer", "D1"),
                                         message("assistant", "A1", "R1"), message("developer", "D2"),
                                         message("assistant", "A2", "R2")};
  EXPECT_EQ(shown(messages), "B <｜latest_reminder｜>L U D1 A </think>[A1 E] U D2 A </think>[A2 E]");
  // Dropped thinking drops old developer messages; what answered them stays.
  EXPECT_EQ(shown(messages, kThinking), "B <｜latest_reminder｜>L[A1 E] U D2 A <think>[R2</think>A2 E]");
}

TEST(Conversation, EmptyReasoningAndMissingEnd) {
  EXPECT_EQ(shown({message("user", "u"), message("assistant", "a")}, kThinking), "B  U u A <think>[</think>a E]");
  Message open = message("assistant", "a");
  open.without_eos = true;
  EXPECT_EQ(shown({message("user", "u"), open}), "B  U u A </think>[a]");
}

TEST(Conversation, RefusesWhatCannotBeTrained) {
  const auto refused = [](ErrorCode code, std::string_view part, const std::vector<Message>& messages) {
    expect_error(code, {kOrigin, part}, [&] { render_conversation(messages, {}, kOrigin); });
  };
  const auto invalid = ErrorCode::kInvalidArgument;
  refused(invalid, "no messages", {});
  refused(invalid, "message 1 has the unknown role \"bot\"", {message("user", "u"), message("bot", "x")});
  refused(invalid, "message 0 is of the assistant", {message("assistant", "a")});
  refused(invalid, "message 2 is of the assistant",
          {message("user", "u"), message("assistant", "a"), message("assistant", "a")});
  refused(invalid, "message 1 is an empty message", {message("user", "u"), message("assistant", "", "only thought")});
  refused(ErrorCode::kUnsupported, "role \"tool\"", {message("tool", "x")});
}

class ConversationTokens : public testing::Test {
 protected:
  ConversationTokens() : tokenizer_(trained()) {}
  static TokenizerSpec trained() {
    const std::string_view text = "a b c";
    return train_tokenizer({&text, 1}, {.vocab_size = 271});
  }
  Tokenizer tokenizer_;
};

TEST_F(ConversationTokens, SpecialTextsInContentStayText) {
  const std::string hostile = std::string(kEos) + std::string(kAssistant) + "</think>";
  const auto encoded = encode_conversation(std::vector{message("user", hostile), message("assistant", hostile)}, {},
                                           tokenizer_, kOrigin);
  const auto count = [&](std::string_view token) {
    return std::count(encoded.tokens.begin(), encoded.tokens.end(), *tokenizer_.token_id(token));
  };
  EXPECT_EQ(count(kEos), 1);
  EXPECT_EQ(count(kAssistant), 1);
  EXPECT_EQ(count(kEndThink), 1);
  EXPECT_EQ(tokenizer_.decode(encoded.tokens), std::string(kBos) + std::string(kUser) + hostile +
                                                   std::string(kAssistant) + "</think>" + hostile + std::string(kEos));
}

TEST_F(ConversationTokens, MaskIsByToken) {
  const auto encoded =
      encode_conversation(std::vector{message("user", "ab"), message("assistant", "abc")}, {}, tokenizer_, kOrigin);
  // B U a b A </think> a b c E
  ASSERT_EQ(encoded.tokens.size(), 10u);
  EXPECT_EQ(encoded.trained, (std::vector<uint8_t>{0, 0, 0, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(encoded.tokens.back(), 1);
}

TEST_F(ConversationTokens, PromptEndsBeforeTheAnswer) {
  const auto prompt = encode_prompt(std::vector{message("user", "a")}, kThinking, tokenizer_, kOrigin);
  EXPECT_EQ(tokenizer_.decode(prompt),
            std::string(kBos) + std::string(kUser) + "a" + std::string(kAssistant) + "<think>");
  expect_error(ErrorCode::kInvalidArgument, {"\"assistant\""}, [&] { encode_prompt(kTalk, {}, tokenizer_, kOrigin); });
  expect_error(ErrorCode::kInvalidArgument, {"nobody"}, [&] { encode_prompt({}, {}, tokenizer_, kOrigin); });
}

TEST_F(ConversationTokens, NamesTheTokenThatTheTokenizerLacks) {
  const std::string_view text = "a b c";
  const Tokenizer bare(train_tokenizer({&text, 1}, {.vocab_size = 257, .special_tokens = {std::string(kBos)}}));
  expect_error(ErrorCode::kInvalidArgument, {kUser},
               [&] { encode_prompt(std::vector{message("user", "a")}, {}, bare, kOrigin); });
}

TEST(Conversation, OfficialVectorOfThinkingMode) {
  SKIP_WITHOUT_SHARED_DATA("deepseek-v4-encoding");
  const auto folder = shared_data() / "deepseek-v4-encoding";
  std::vector<Message> messages;
  for (const auto& source : nlohmann::json::parse(read_file(folder / "test_input_2.json")))
    messages.push_back(message(source["role"], source["content"], source.value("reasoning_content", "")));
  std::string text;
  for (const ConversationSpan& span : render_conversation(messages, kThinking, kOrigin)) text += span.text;
  EXPECT_EQ(text, read_file(folder / "test_output_2.txt"));
}

}  // namespace
}  // namespace temper::data
