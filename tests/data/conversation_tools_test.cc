#include "data/conversation.h"
#include "data/special_tokens.h"
#include "data/tokenizer_trainer.h"
#include "data_test_support.h"
#include "prose_support.h"

namespace temper::data {
namespace {

constexpr const char* kOrigin = "talk.jsonl:7";
constexpr const char* kTools =
    R"([{"type":"function","function":{"name":"f","x":1.0}}, {"function": {"name": "\u4f60"}}])";

std::string rendered(const std::vector<Message>& messages, const ConversationOptions& options = {}) {
  return join_spans(render_conversation(messages, options, kOrigin));
}

// The trained text only.
std::string trained(const std::vector<Message>& messages, const ConversationOptions& options = {}) {
  std::string out;
  for (const ConversationSpan& span : render_conversation(messages, options, kOrigin))
    out += span.trained ? span.text : "";
  return out;
}

const Message kAsk = {.role = "user", .content = "q"};

Message calling(std::vector<ToolCall> calls) {
  return {.role = "assistant", .content = "C", .tool_calls = std::move(calls)};
}

TEST(ConversationTools, CallsAreWrittenAndTrained) {
  const std::string expected =
      "C\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get\">\n"
      "<｜DSML｜parameter name=\"city\" string=\"true\">Pa\"ris\n</｜DSML｜parameter>\n"
      "<｜DSML｜parameter name=\"days\" string=\"false\">3.0</｜DSML｜parameter>\n"
      "<｜DSML｜parameter name=\"o\" string=\"false\">{\"u\": [null, \"é\"]}</｜DSML｜parameter>\n"
      "</｜DSML｜invoke>\n<｜DSML｜invoke "
      "name=\"now\">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>";
  const std::vector<Message> talk = {
      kAsk,
      calling({{"a", "get", R"({"city": "Pa\"ris\n", "days": 3.0, "o":{"u":[null,"\u00e9"]}})"}, {"b", "now", "{}"}})};
  EXPECT_EQ(trained(talk), expected);
  EXPECT_EQ(rendered(talk), std::string(kBos) + "<｜User｜>q<｜Assistant｜></think>" + expected);
}

TEST(ConversationTools, ArgumentsThatAreNotJsonAreOneParameter) {
  for (const std::string arguments : {"", "city=Paris", "{\"a\": }"})
    EXPECT_EQ(trained({kAsk, calling({{"", "f", arguments}})}),
              "C\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"arguments\" "
              "string=\"true\">" +
                  arguments + "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>");
}

TEST(ConversationTools, ResultsJoinTheUserInTheOrderOfTheCalls) {
  const auto result = [](std::string id, std::string content) {
    return Message{.role = "tool", .content = std::move(content), .tool_call_id = std::move(id)};
  };
  const Message calls = calling({{"a", "f", "{}"}, {"b", "g", "{}"}, {"c", "h", "{}"}});
  const auto results = [&](const std::vector<Message>& parts) {
    std::vector<Message> talk = {kAsk, calls};
    talk.insert(talk.end(), parts.begin(), parts.end());
    const std::string text = rendered(talk);
    const size_t begin = text.rfind("<｜User｜>") + std::string_view("<｜User｜>").size();
    return text.substr(begin, text.rfind("<｜Assistant｜>") - begin);
  };
  EXPECT_EQ(results({result("b", "B"), result("a", "A"), kAsk}),
            "<tool_result>A</tool_result>\n\n<tool_result>B</tool_result>\n\nq");
  // Text between keeps its place; an id that was not called counts as the first.
  EXPECT_EQ(results({result("c", "C"), kAsk, result("?", "X"), result("a", "A")}),
            "<tool_result>X</tool_result>\n\nq\n\n<tool_result>A</tool_result>\n\n<tool_result>C</tool_result>");
  EXPECT_EQ(trained({kAsk, calls, result("a", "A")}), trained({kAsk, calls}));
}

TEST(ConversationTools, ToolsAndResponseFormatStandAfterTheContent) {
  ConversationOptions options;
  options.prose = stand_in_prose();
  const std::string tools =
      "\n\n" + kStandInProse[1] + "{\"name\": \"f\", \"x\": 1.0}\n{\"name\": \"你\"}" + kStandInProse[2];
  const std::string format = "\n\nAnswer by:\n{\"a\": [1]}";
  const Message system = {.role = "system", .content = "S", .tools = kTools, .response_format = R"({"a":[1]})"};
  EXPECT_EQ(rendered({system}, options), std::string(kBos) + "S" + tools + format);
  Message developer = system;
  developer.role = "developer";
  EXPECT_EQ(rendered({developer}, options),
            std::string(kBos) + "<｜User｜>S" + tools + format + "<｜Assistant｜></think>");
  // Python's falsehoods are none, and then no block is needed.
  EXPECT_EQ(rendered({{.role = "system", .content = "S", .tools = "[]", .response_format = "{}"}}),
            std::string(kBos) + "S");
}

TEST(ConversationTools, MissingProseIsNamed) {
  const auto refused = [](std::string_view part, const Message& message, const ConversationOptions& options = {}) {
    expect_error(ErrorCode::kNotFound, {kOrigin, part, "no model directory"}, [&] { rendered({message}, options); });
  };
  refused("\"tools_before\"", {.role = "system", .tools = kTools});
  refused("\"response_format\"", {.role = "system", .response_format = "{\"a\": 1}"});
  refused("\"reasoning_effort_max\"", kAsk, {.mode = ConversationMode::kThinking, .effort = ReasoningEffort::kMax});
}

TEST(ConversationTools, ToolsKeepAllReasoning) {
  ConversationOptions options = {.mode = ConversationMode::kThinking};
  options.prose = stand_in_prose();
  std::vector<Message> talk = {{.role = "system", .content = "S"},
                               {.role = "developer", .content = "D"},
                               {.role = "assistant", .content = "a", .reasoning_content = "R1"},
                               kAsk,
                               {.role = "assistant", .content = "b", .reasoning_content = "R2"}};
  EXPECT_EQ(trained(talk, options), "a<｜end▁of▁sentence｜>R2</think>b<｜end▁of▁sentence｜>");
  talk[0].tools = kTools;
  EXPECT_EQ(trained(talk, options), "R1</think>a<｜end▁of▁sentence｜>R2</think>b<｜end▁of▁sentence｜>");
}

TEST(ConversationTools, OnlyTheHighestEffortChangesTheText) {
  ConversationOptions options = {.mode = ConversationMode::kThinking};
  options.prose = stand_in_prose();
  const std::string plain = rendered({kAsk}, options);
  for (const ReasoningEffort effort : {ReasoningEffort::kLow, ReasoningEffort::kHigh}) {
    options.effort = effort;
    EXPECT_EQ(rendered({kAsk}, options), plain);
  }
  options.effort = ReasoningEffort::kMax;
  EXPECT_EQ(rendered({kAsk}, options), std::string(kBos) + "Think hard.\n\n" + plain.substr(kBos.size()));
  options.mode = ConversationMode::kChat;
  EXPECT_EQ(rendered({kAsk}, options), rendered({kAsk}));
}

// DSML of calls and of the block of prose is the token; in content it is text.
TEST(ConversationTools, MarksAreTokensOnlyWhereTheFormatWritesThem) {
  ConversationOptions options;
  options.prose = stand_in_prose();
  const std::string mark(kDsml);
  const std::vector<Message> talk = {
      {.role = "system", .content = mark, .tools = R"([{"function": {"name": "｜DSML｜"}}])"},
      {.role = "user", .content = mark},
      calling({{"", mark, "{\"｜DSML｜\": \"｜DSML｜\"}"}})};
  const auto spans = render_conversation(talk, options, kOrigin);
  const auto marks = std::count_if(spans.begin(), spans.end(),
                                   [&](const ConversationSpan& span) { return span.is_special && span.text == kDsml; });
  EXPECT_EQ(marks, 1 + 6);  // of the stand-in block; of the call
  const auto thinks = std::count_if(
      spans.begin(), spans.end(), [&](const ConversationSpan& span) { return span.is_special && span.text == kThink; });
  EXPECT_EQ(thinks, 1);
}

}  // namespace
}  // namespace temper::data
