#include "data/conversation.h"

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

TEST(Conversation, TasksAreAskedForByTheirTokens) {
  const auto asked = [](std::string task) {
    Message out = message("user", "u");
    out.task = std::move(task);
    return out;
  };
  const Message answer = message("assistant", "q", "never written after a task");
  EXPECT_EQ(shown({asked("query"), answer}), "B  U u<｜query｜>[q E]");
  EXPECT_EQ(shown({asked("read_url"), answer}, kThinking), "B  U u<｜read_url｜>[q E]");
  EXPECT_EQ(shown({asked("action"), answer}), "B  U u A </think><｜action｜>[q E]");
  EXPECT_EQ(shown({asked("action"), answer}, kThinking), "B  U u A <think><｜action｜>[q E]");
  // A title is asked for after an answer.
  Message titled = message("assistant", "a", "R");
  titled.task = "title";
  EXPECT_EQ(shown({message("user", "u"), titled, answer}, kThinking), "B  U u A <think>[R</think>a E]<｜title｜>[q E]");
  EXPECT_EQ(shown({message("user", "u"), titled}), "B  U u A </think>[a E]<｜title｜>");
}

TEST(Conversation, QuestionsInARowAreOne) {
  EXPECT_EQ(shown({message("user", "a"), message("user", "b"), message("assistant", "c")}),
            "B  U a\n\nb A </think>[c E]");
  Message asks = message("user", "a");
  asks.task = "domain";
  EXPECT_EQ(shown({asks, message("user", "b"), message("assistant", "c")}), "B  U a U b A </think>[c E]");
}

TEST(Conversation, EarlierContextIsNotWrittenAgain) {
  ConversationOptions later = kThinking;
  later.num_context = 3;
  EXPECT_EQ(shown(kTalk, later), " U U2 A <think>[R2</think>A2 E]");
  later.num_context = 1;
  EXPECT_EQ(shown(kTalk, later), " U U1 A </think>[A1 E] U U2 A <think>[R2</think>A2 E]");
}

TEST(Conversation, ReasoningThatIsDroppedLaterMakesAnExamplePerTurn) {
  const auto parts = [](const std::vector<Message>& messages, const ConversationOptions& options,
                        size_t untrained = 0) {
    std::string out;
    for (const ConversationPart& part : conversation_parts(messages, options, untrained))
      out += shown({messages.begin(), messages.begin() + static_cast<int64_t>(part.num_messages)}, options,
                   part.num_untrained) +
             "; ";
    return out;
  };
  EXPECT_EQ(parts(kTalk, kThinking),
            "B S U U1 A <think>[R1</think>A1 E]; B S U U1 A </think>A1 E U U2 A <think>[R2</think>A2 E]; ");
  EXPECT_EQ(parts(kTalk, {}), shown(kTalk) + "; ");
  EXPECT_EQ(parts(kTalk, kThinking, 3), shown(kTalk, kThinking, 3) + "; ");
  ConversationOptions options = kThinking;
  options.drop_thinking = false;
  EXPECT_EQ(parts(kTalk, options), shown(kTalk, options) + "; ");
  options = kThinking;
  options.train_on_history = false;
  EXPECT_EQ(parts(kTalk, options), shown(kTalk, options) + "; ");
  std::vector<Message> talk = kTalk;
  talk[2].reasoning_content = "";  // nothing is lost
  EXPECT_EQ(parts(talk, kThinking), shown(talk, kThinking) + "; ");
  talk = kTalk;
  talk[0].tools = "[]";
  EXPECT_EQ(conversation_parts(talk, kThinking).size(), 2u);
  talk[0].tools = R"([{"function": {"name": "f"}}])";
  EXPECT_EQ(conversation_parts(talk, kThinking).size(), 1u);
  talk = kTalk;
  talk.pop_back();  // the question that is left without an answer would drop R1
  EXPECT_EQ(parts(talk, kThinking), "B S U U1 A <think>[R1</think>A1 E]; ");
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
  refused(invalid, "message 0 is an empty message of the developer", {message("developer", "")});
  Message other = message("user", "u");
  other.task = "dance";
  refused(invalid, "message 0 has the unknown task \"dance\"", {other});
  other.task = "query";
  refused(invalid, "message 1 has the task \"query\" but is written as one", {message("tool", "x"), other});
  other.role = "system";
  refused(invalid, "message 0 of the role \"system\" has a task", {other});
}

TEST(Conversation, FieldsBelongToTheirRoles) {
  const auto refused = [](std::string_view part, const Message& odd) {
    expect_error(ErrorCode::kInvalidArgument, {kOrigin, "message 1", part}, [&] {
      render_conversation(std::vector{message("user", "u"), odd}, {}, kOrigin);
    });
  };
  refused("has tools", {.role = "user", .content = "u", .tools = "[]"});
  refused("has a response format", {.role = "assistant", .content = "u", .response_format = "{}"});
  refused("has tool calls", {.role = "tool", .content = "u", .tool_calls = {{"", "f", "{}"}}});
  refused("a tool without a name", {.role = "assistant", .tool_calls = {{"", "", "{}"}}});
  refused("tools that are not a JSON list", {.role = "system", .tools = "{\"a\": 1}"});
  refused("tools that are not a JSON list", {.role = "system", .tools = "[{]"});
  refused("number 1 of its list) without an object \"function\"",
          {.role = "system", .tools = R"([{"function": {}}, {"name": "f"}])"});
  refused("a response format that is not JSON", {.role = "system", .response_format = "{"});
  refused("JSON but not an object", {.role = "assistant", .tool_calls = {{"", "f", "[1]"}}});
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
  expect_error(ErrorCode::kInvalidArgument, {"no messages"}, [&] { encode_prompt({}, {}, tokenizer_, kOrigin); });
}

TEST_F(ConversationTokens, NamesTheTokenThatTheTokenizerLacks) {
  const std::string_view text = "a b c";
  const Tokenizer bare(train_tokenizer({&text, 1}, {.vocab_size = 257, .special_tokens = {std::string(kBos)}}));
  expect_error(ErrorCode::kInvalidArgument, {kUser},
               [&] { encode_prompt(std::vector{message("user", "a")}, {}, bare, kOrigin); });
}

}  // namespace
}  // namespace temper::data
