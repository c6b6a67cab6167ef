#include "data/conversation_parse.h"

#include <random>

#include "data/special_tokens.h"
#include "data/tokenizer_trainer.h"
#include "data_test_support.h"
#include "prose_support.h"

namespace temper::data {
namespace {

constexpr const char* kOrigin = "talk.jsonl:7";

ParsedCompletion parsed(std::string_view text, ConversationMode mode = ConversationMode::kChat) {
  return parse_completion(split_special(text), mode);
}

// One call of f with what stands between its name and its end.
std::string call_of(const std::string& inside) {
  return "C\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n" + inside +
         "</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>";
}

TEST(ParseCompletion, TakesAnAnswerApart) {
  const auto plain = parsed("a <b>\n\n<end<｜end▁of▁sentence｜>");
  EXPECT_EQ(plain.problem, "");
  EXPECT_EQ(plain.message.role, "assistant");
  EXPECT_EQ(plain.message.content, "a <b>\n\n<end");
  const auto thought = parsed("R</think>A<｜end▁of▁sentence｜>", ConversationMode::kThinking);
  EXPECT_EQ(thought.problem, "");
  EXPECT_EQ(thought.message.reasoning_content, "R");
  EXPECT_EQ(thought.message.content, "A");
}

TEST(ParseCompletion, TakesCallsApart) {
  const auto calls = parsed(
      "C\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get\">\n"
      "<｜DSML｜parameter name=\"city\" string=\"true\">\"Paris\"\n</｜DSML｜parameter>\n"
      "<｜DSML｜parameter name=\"days\" string=\"false\">[1.0, {}]</｜DSML｜parameter>\n"
      "</｜DSML｜invoke>\n<｜DSML｜invoke "
      "name=\"now\">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>");
  EXPECT_EQ(calls.problem, "");
  EXPECT_EQ(calls.message.content, "C");
  ASSERT_EQ(calls.message.tool_calls.size(), 2u);
  EXPECT_EQ(calls.message.tool_calls[0].name, "get");
  EXPECT_EQ(calls.message.tool_calls[0].arguments, R"({"city": "\"Paris\"\n", "days": [1.0, {}]})");
  EXPECT_EQ(calls.message.tool_calls[1].name, "now");
  EXPECT_EQ(calls.message.tool_calls[1].arguments, "{}");
}

TEST(ParseCompletion, NamesWhatIsBrokenAndWhere) {
  const auto broken = [](std::string_view part, const std::string& text, ConversationMode mode = {}) {
    const std::string problem = parsed(text, mode).problem;
    EXPECT_NE(problem.find(part), problem.npos) << "\"" << part << "\" is not in: " << problem;
  };
  const std::string end(kEos);
  broken("byte 1 of the answer: no </think> ends the reasoning", "R", ConversationMode::kThinking);
  broken("it ends where <｜end▁of▁sentence｜> should come", "a");
  broken("text follows <｜end▁of▁sentence｜>", "a" + end + "b");
  broken("byte 1 of the answer: the special token <think> stands inside the content", "a<think>b" + end);
  broken("the special token <｜User｜> stands inside the reasoning", "R<｜User｜></think>a" + end,
         ConversationMode::kThinking);
  broken("a new line after the opening", "C\n\n<｜DSML｜tool_calls><｜DSML｜invoke");
  broken("an invocation", "C\n\n<｜DSML｜tool_calls>\n</｜DSML｜tool_calls>" + end);
  broken("the end of the invocation", call_of("x"));
  broken("the name of a tool is not ended", "C\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f");
  broken("inside the name of a tool", "C\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f</think>\">\n");
  broken("string=\"maybe\"", call_of("<｜DSML｜parameter name=\"a\" string=\"maybe\">1</｜DSML｜parameter>\n"));
  broken("\"a\" is no string and its value is not JSON",
         call_of("<｜DSML｜parameter name=\"a\" string=\"false\">x</｜DSML｜parameter>\n"));
  broken("\"a\" is not ended", call_of("<｜DSML｜parameter name=\"a\" string=\"true\">x\n"));
  const std::string good = "<｜DSML｜parameter name=\"a\" string=\"true\">x</｜DSML｜parameter>\n";
  EXPECT_EQ(parsed(call_of(good)).problem, "");
  broken("the parameter \"a\" is given twice", call_of(good + good));
  broken("\"a\" is not UTF-8", call_of("<｜DSML｜parameter name=\"a\" string=\"true\">\xff</｜DSML｜parameter>\n"));
  const std::string whole = call_of(good);
  broken("expected <｜end▁of▁sentence｜>, found \"x", whole.substr(0, whole.size() - end.size()) + "x" + end);
  // Wherever an answer is cut off, that is said, and what came before is there.
  for (size_t length = 0; length < whole.size(); ++length) {
    const auto cut = parsed(std::string_view(whole).substr(0, length));
    EXPECT_NE(cut.problem, "") << length;
    EXPECT_EQ(cut.message.content.substr(0, 1), length == 0 ? "" : "C");
  }
}

TEST(ParseCompletion, MarksThatAreTextAreContent) {
  const std::string text = call_of("");
  const std::vector<ConversationSpan> spans = {{text, false, true}, {std::string(kEos), true, true}};
  const auto completion = parse_completion(spans, ConversationMode::kChat);
  EXPECT_EQ(completion.problem, "");
  EXPECT_EQ(completion.message.content, text);
  EXPECT_TRUE(completion.message.tool_calls.empty());
}

// Draws conversations of every kind of message and field. Developers only where none is left out as old: what answered
// it would stay behind as a text that nobody asked for, which cannot be taken apart.
class RandomConversation {
 public:
  explicit RandomConversation(uint32_t seed) : random_(seed) {}

  std::vector<Message> make(const ConversationOptions& options) {
    has_developers_ = options.mode == ConversationMode::kChat || !options.drop_thinking;
    std::vector<Message> out;
    if (draw(2)) out.push_back({.role = "system", .content = text()});
    if (!out.empty() && draw(3) == 0) instruct(out.back());
    if (draw(3) == 0) out.push_back({.role = "latest_reminder", .content = text()});
    const size_t num_turns = 1 + draw(3);
    for (size_t i = 0; i < num_turns; ++i) add_turn(out);
    if (draw(4) == 0) out.push_back({.role = "user", .content = text()});
    return out;
  }

  ConversationOptions options() {
    ConversationOptions out;
    out.mode = draw(2) ? ConversationMode::kThinking : ConversationMode::kChat;
    out.drop_thinking = draw(3) > 0;
    out.effort = draw(3) ? ReasoningEffort::kNone : ReasoningEffort::kMax;
    return out;
  }

 private:
  size_t draw(size_t below) { return std::uniform_int_distribution<size_t>(0, below - 1)(random_); }

  std::string text() {
    static const std::vector<std::string> kPieces = {
        "a",  "é\n", "\n\n",          "<",    "</think>",    "｜DSML｜", "\n\n<｜DSML｜tool_calls>\n", "<｜User｜>",
        "\"", "{",   "<tool_result>", "你好", "Answer by:\n"};
    std::string out = "x";
    for (size_t i = draw(4); i > 0; --i) out += kPieces[draw(kPieces.size())];
    return out;
  }

  void instruct(Message& message) {
    if (draw(2))
      message.tools = R"([{"function":{"name":"f"}},{"type":"function","function":{"name":"g","x":[1e-7]}}])";
    if (draw(2)) message.response_format = R"({"type":"object"})";
  }

  void add_turn(std::vector<Message>& out) {
    out.push_back({.role = has_developers_ && draw(4) == 0 ? "developer" : "user", .content = text()});
    if (out.back().role == "developer") instruct(out.back());
    if (draw(6) == 0) out.back().task = draw(2) ? "action" : "query";
    for (;;) {
      Message answer = {.role = "assistant", .content = text(), .reasoning_content = draw(3) ? text() : ""};
      if (draw(8) == 0) answer.without_eos = true;
      const bool calls = draw(3) == 0;
      for (size_t i = calls ? 1 + draw(2) : 0; i > 0; --i)
        answer.tool_calls.push_back({std::to_string(i), "f", draw(4) ? R"({"s":"<\n","n":[1,2.50],"o":{}})" : text()});
      const bool titled = !calls && !answer.without_eos && draw(8) == 0;
      if (titled) answer.task = "title";
      out.push_back(answer);
      if (titled) out.push_back({.role = "assistant", .content = text()});
      if (!calls || answer.without_eos) return;
      for (size_t i = 1; i <= answer.tool_calls.size(); ++i)
        out.push_back({.role = "tool", .content = text(), .tool_call_id = std::to_string(i)});
    }
  }

  std::mt19937 random_;
  bool has_developers_ = true;
};

std::vector<Message> answers(const std::vector<Message>& messages) {
  std::vector<Message> out;
  for (const Message& message : messages) {
    if (message.role == "assistant") out.push_back(message);
  }
  return out;
}

TEST(ParseConversation, RandomConversationsComeBack) {
  const ProseBlocks prose = stand_in_prose();
  const std::string text = "a b c";
  const std::string_view view = text;
  const Tokenizer tokenizer(train_tokenizer({&view, 1}, {.vocab_size = 271}));
  int64_t num_calls = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    RandomConversation random(seed);
    ConversationOptions options = random.options();
    options.prose = prose;
    const std::vector<Message> messages = random.make(options);
    std::vector<ConversationSpan> spans = render_conversation(messages, options, kOrigin);
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, join_spans(spans)));
    const auto again = parse_conversation(spans, prose, kOrigin);
    EXPECT_EQ(render_conversation(again.messages, again.options, kOrigin), spans);
    const auto before = answers(messages), after = answers(again.messages);
    ASSERT_EQ(before.size(), after.size());
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_EQ(after[i].content, before[i].content);
      EXPECT_EQ(after[i].task, before[i].task);
      ASSERT_EQ(after[i].tool_calls.size(), before[i].tool_calls.size());
      num_calls += static_cast<int64_t>(after[i].tool_calls.size());
    }
    // Through the tokens, too.
    for (ConversationSpan& span : spans) span.trained = false;
    EXPECT_EQ(join_spans(decode_spans(encode_spans(spans, tokenizer).tokens, tokenizer)), join_spans(spans));
  }
  EXPECT_GT(num_calls, 100);
}

TEST(ParseConversation, RefusesWhatTheFormatDoesNotWrite) {
  const auto refused = [](std::string_view part, std::string_view text) {
    expect_error(ErrorCode::kCorrupt, {kOrigin, part},
                 [&] { parse_conversation(split_special(text), stand_in_prose(), kOrigin); });
  };
  const std::string start = std::string(kBos) + "S<｜User｜>u<｜Assistant｜>";
  refused("does not begin with", "S");
  refused("followed by neither", start + "a");
  refused("stands where no message begins or ends", start + "</think>a<｜end▁of▁sentence｜><｜end▁of▁sentence｜>");
  refused("message 2: byte 31 of the answer: no </think> ends the reasoning",
          start + "<think>R A\n<｜end▁of▁sentence｜>");
  refused("special token ｜DSML｜ stands inside the content", std::string(kBos) + "｜DSML｜");
  refused("follows no message", std::string(kBos) + "<｜query｜>");
  refused("differs at byte",
          std::string(kBos) + "S<｜User｜>u<｜User｜>v<｜Assistant｜></think>a<｜end▁of▁sentence｜>");
}

}  // namespace
}  // namespace temper::data
