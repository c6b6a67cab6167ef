#include "data/records.h"

#include "data/record_parser.h"
#include "data_test_support.h"

namespace temper::data {
namespace {

class RecordsTest : public DataTest {
 protected:
  std::vector<Record> read(std::string_view contents, const RecordOptions& options = {}, const char* name = "x.jsonl") {
    std::vector<Record> records;
    for_each_record(write(name, contents), options, [&](Record&& record) { records.push_back(std::move(record)); });
    return records;
  }
  Record one(std::string_view contents, const RecordOptions& options = {}) {
    std::vector<Record> records = read(contents, options);
    EXPECT_EQ(records.size(), 1u);
    return records.empty() ? Record{} : records[0];
  }
  void refused(ErrorCode code, std::initializer_list<std::string_view> parts, std::string_view contents,
               const RecordOptions& options = {}, const char* name = "x.jsonl") {
    expect_error(code, parts, [&] { read(contents, options, name); });
  }
  // "role:content" of each message, and what it carries besides.
  static std::string outline(const std::vector<Message>& messages) {
    std::string out;
    for (const Message& message : messages) {
      out += message.role + ":" + message.content;
      if (!message.reasoning_content.empty()) out += "{" + message.reasoning_content + "}";
      for (const ToolCall& call : message.tool_calls) out += "<" + call.id + call.name + call.arguments + ">";
      if (!message.tool_call_id.empty()) out += "@" + message.tool_call_id;
      if (!message.task.empty()) out += "#" + message.task;
      if (!message.tools.empty()) out += message.tools;
      out += "|";
    }
    return out;
  }
  std::string outline(std::string_view line) { return outline(record_messages(one(line))); }
};

constexpr auto kInvalid = ErrorCode::kInvalidArgument;

TEST_F(RecordsTest, TellsFormatsByTheirFields) {
  EXPECT_EQ(one(R"({"messages": [{"role": "user", "content": "a"}]})").format, RecordFormat::kMessages);
  EXPECT_EQ(one(R"({"conversations": [{"from": "human", "value": "a"}]})").format, RecordFormat::kShareGpt);
  EXPECT_EQ(one(R"({"instruction": "a", "output": "b"})").format, RecordFormat::kAlpaca);
  EXPECT_EQ(one(R"({"prompt": "a", "completion": "b"})").format, RecordFormat::kPromptCompletion);
  EXPECT_EQ(one(R"({"text": "a", "messages": null})").format, RecordFormat::kText);
  for (const char* pair : {R"({"question": "a", "answer": "b", "level": 3})", R"({"query": "a", "response": "b"})"})
    EXPECT_EQ(outline(pair), "user:a|assistant:b|") << pair;
}

TEST_F(RecordsTest, RefusesFieldsOfNoFormatOrOfSeveral) {
  refused(kInvalid, {"x.jsonl:1:1", "input, golden", "messages (messages)", "alpaca (instruction, output)"},
          R"({"input": "a", "golden": "b"})");
  refused(kInvalid, {"x.jsonl:2:1", "messages or text", "--format"},
          R"({"text": "a"})"
          "\n"
          R"({"messages": [{"role": "user", "content": "a"}], "text": "b"})");
  refused(kInvalid, {"preference pairs"}, R"({"prompt": "a", "chosen": "b", "rejected": "c"})");
  refused(kInvalid, {"question, answer", "not the format alpaca"}, R"({"question": "a", "answer": "b"})",
          {.format = RecordFormat::kAlpaca});
  // Named, the format decides.
  EXPECT_EQ(one(R"({"text": "a", "instruction": "b", "output": "c"})", {.format = RecordFormat::kText}).text, "a");
  expect_error(kInvalid, {"\"chatml\"", "sharegpt"}, [] { parse_record_format("chatml"); });
  EXPECT_EQ(parse_record_format("prompt-completion"), RecordFormat::kPromptCompletion);
}

TEST_F(RecordsTest, ReadsToolsAndCallsOfTheAssistant) {
  const char* call = R"({"messages": [{"role": "user", "content": "a"},
    {"role": "assistant", "content": null, "tool_calls": [
      {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
      {"name": "g", "arguments": {"y": [1.5, "ü"]}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "r"}]})";
  std::string line(call);
  std::erase(line, '\n');
  EXPECT_EQ(outline(line), R"(user:a|assistant:<c1f{"x": 1}><g{"y":[1.5,"ü"]}>|tool:r@c1|)");
  refused(kInvalid, {"message 0", "no \"name\""}, R"({"messages": [{"role": "assistant", "tool_calls": [{"x": 1}]}]})");
  refused(kInvalid, {"\"f\" has no \"arguments\""},
          R"({"messages": [{"role": "assistant", "tool_calls": [{"name": "f"}]}]})");
}

TEST_F(RecordsTest, ToolsAtTheTopGoToTheSystemMessage) {
  const std::string wrapped = R"([{"type":"function","function":{"name":"f","x":1}}])";
  const std::string user = R"("messages": [{"role": "user", "content": "a"}])";
  // Bare, as a text, and as OpenAI has them: the same.
  for (const char* tools : {R"([{"name": "f", "x": 1}])", R"("[{\"name\": \"f\", \"x\": 1}]")",
                            R"([{"type": "function", "function": {"name": "f", "x": 1}}])"})
    EXPECT_EQ(outline("{" + user + R"(, "tools": )" + tools + "}"), "system:" + wrapped + "|user:a|") << tools;
  EXPECT_EQ(outline("{" + user + R"(, "tools": "[]"})"), "user:a|");
  EXPECT_EQ(outline(R"({"messages": [{"role": "system", "content": "S"}], "tools": [{"name": "f", "x": 1}]})"),
            "system:S" + wrapped + "|");
  EXPECT_EQ(outline(R"({"messages": [{"role": "developer", "content": "D", "tools": [{"name": "f", "x": 1}]}]})"),
            "developer:D" + wrapped + "|");
  refused(kInvalid, {"tool 0 has no \"name\""}, "{" + user + R"(, "tools": [{"x": 1}]})");
  refused(kInvalid, {"not JSON"}, "{" + user + R"(, "tools": "[{"})");
  refused(kInvalid, {"both the record and its system message", "tools"},
          R"({"messages": [{"role": "system", "content": "S", "tools": [{"name": "f"}]}], "tools": [{"name": "f"}]})");
}

TEST_F(RecordsTest, TasksAndResponseFormatsAreKept) {
  EXPECT_EQ(outline(R"({"messages": [{"role": "user", "content": "a", "task": "action"}]})"), "user:a#action|");
  const auto messages = record_messages(
      one(R"({"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "object"}})"));
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].response_format, R"({"type":"object"})");
  EXPECT_TRUE(one(R"({"messages": [{"role": "assistant", "content": "a", "wo_eos": true}]})").messages[0].without_eos);
}

TEST_F(RecordsTest, JoinsContentInParts) {
  EXPECT_EQ(outline(R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, "b",)"
                    R"( {"type": "image_url", "image_url": {}}]}]})"),
            "user:a\n\nb\n\n[Unsupported image_url]|");
  refused(kInvalid, {"\"content\" is not a string (message 0)"}, R"({"messages": [{"role": "user", "content": 3}]})");
}

TEST_F(RecordsTest, TakesThoughtsOutOfTheContent) {
  const auto assistant = [&](const char* content) {
    return outline(std::string(R"({"messages": [{"role": "assistant", "content": ")") + content + "\"}]}");
  };
  EXPECT_EQ(assistant(R"(<think>\nwhy\nso\n</think>\n\nbecause\n)"), "assistant:because\n{why\nso}|");
  EXPECT_EQ(assistant(R"(<think>why</think>because)"), "assistant:because{why}|");
  EXPECT_EQ(assistant(R"(<think></think>because)"), "assistant:because|");
  EXPECT_EQ(assistant(R"(<think>why)"), "assistant:<think>why|");
  EXPECT_EQ(assistant(R"(so <think>why</think>)"), "assistant:so <think>why</think>|");
  EXPECT_EQ(outline(R"({"prompt": "<think>a</think>", "completion": "<think>b</think>c"})"),
            "user:<think>a</think>|assistant:c{b}|");
  EXPECT_EQ(one(R"({"prompt": "a", "completion": "<think>b</think>c"})").completion, "<think>b</think>c");
}

TEST_F(RecordsTest, ReadsShareGpt) {
  EXPECT_EQ(outline(R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},)"
                    R"({"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},)"
                    R"({"from": "function_call", "value": "[{\"name\": \"g\", \"arguments\": {}}]"},)"
                    R"({"from": "observation", "value": "r"}, {"from": "gpt", "value": "<think>t</think>c"}],)"
                    R"("system": "S", "tools": "[{\"name\": \"f\"}]"})"),
            R"(system:S[{"type":"function","function":{"name":"f"}}]|user:a|assistant:b<f{"x":1}><g{}>|)"
            R"(tool:r|assistant:c{t}|)");
  EXPECT_EQ(outline(R"({"conversations": [{"role": "user", "content": "a"}]})"), "user:a|");
  refused(kInvalid, {"x.jsonl:1", "message 0", "not JSON"},
          R"({"conversations": [{"from": "function_call", "value": "{\"name\": \"f\", \"argu"}]})");
  refused(kInvalid, {"turn 0 has no \"value\""}, R"({"conversations": [{"from": "human"}]})");
}

TEST_F(RecordsTest, ReadsAlpaca) {
  EXPECT_EQ(outline(R"({"instruction": "i", "input": "n", "output": "o", "system": "S", "history": [["a", "b"]]})"),
            "system:S|user:a|assistant:b|user:i\nn|assistant:o|");
  EXPECT_EQ(outline(R"({"instruction": "i", "input": "", "output": "o", "history": []})"), "user:i|assistant:o|");
  refused(kInvalid, {"has 1 texts"}, R"({"instruction": "i", "output": "o", "history": [["a"]]})");
}

TEST_F(RecordsTest, CountsTheMessagesOfAPromptWithItsSystemMessage) {
  const Record strings = one(R"({"prompt": "a", "completion": "b", "system": "S"})");
  EXPECT_EQ(outline(strings.messages), "system:S|user:a|assistant:b|");
  EXPECT_EQ(strings.num_prompt_messages, 2u);
  const Record lists = one(R"({"prompt": [{"role": "user", "content": "a"}], "system": "S",)"
                           R"("completion": [{"role": "assistant", "content": "b"}]})");
  EXPECT_EQ(lists.num_prompt_messages, 2u);
}

TEST_F(RecordsTest, ReadsAListOfRecordsWithTheirLines) {
  const char* list = "[\n  {\"text\": \"a ] } \\\" \"},\n\n  {\n    \"text\": \"b\"}\n]\n";
  const auto records = read(list, {}, "x.json");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].text, "a ] } \" ");
  EXPECT_TRUE(records[0].origin.ends_with("x.json:2")) << records[0].origin;
  EXPECT_TRUE(records[1].origin.ends_with("x.json:4")) << records[1].origin;
  EXPECT_EQ(read("\n{\"text\":\n \"a\"}\n", {}, "x.json")[0].text, "a");
  EXPECT_TRUE(read(" [ ] ", {}, "x.json").empty());
  EXPECT_TRUE(read("", {}, "x.json").empty());
}

TEST_F(RecordsTest, NumbersBeyondADoubleAreRefusedWithTheirPlace) {
  refused(ErrorCode::kCorrupt, {"x.jsonl:1:14", "not JSON"},
          R"({"text": 2e308})"
          "\n");
}

TEST_F(RecordsTest, RefusesBrokenLists) {
  const auto corrupt = ErrorCode::kCorrupt;
  refused(corrupt, {"x.json:2:1", "not closed"}, "[{\"text\": \"a\"},\n{\"text\": \"b", {}, "x.json");
  refused(corrupt, {"x.json:1:1", "a comma"}, "[{\"text\": \"a\"} {\"text\": \"b\"}]", {}, "x.json");
  refused(corrupt, {"x.json:2:1", "after the end"}, "[{\"text\": \"a\"}]\n[]", {}, "x.json");
  refused(corrupt, {"x.json:1:1", "not a JSON object"}, "[[1], 2]", {}, "x.json");
  refused(corrupt, {"not JSON"}, "[}]", {}, "x.json");
  refused(corrupt, {"behind the comma"}, "[{\"text\": \"a\"},]", {}, "x.json");
  refused(kInvalid, {"this is one message"}, R"([{"role": "user", "content": "a"}])", {}, "x.json");
}

TEST_F(RecordsTest, RefusesFieldsThatWouldChangeWhatIsTrained) {
  const auto message = [](const std::string& field) {
    return R"({"messages": [{"role": "assistant", "content": "a", )" + field + "}]}";
  };
  refused(ErrorCode::kUnsupported, {"message 0", "\"reasoning\"", "reasoning_content"}, message(R"("reasoning": "b")"));
  refused(ErrorCode::kUnsupported, {"\"function_call\"", "tool_calls"}, message(R"("function_call": {"name": "f"})"));
  refused(ErrorCode::kUnsupported, {"\"weight\""}, message(R"("weight": 0)"));
  refused(ErrorCode::kUnsupported, {"\"train\""}, message(R"("train": false)"));
  EXPECT_EQ(outline(message(R"("weight": 1, "train": true, "function_call": null)")), "assistant:a|");
  EXPECT_EQ(outline(message(R"("reasoning": "b", "reasoning_content": "b")")), "assistant:a{b}|");
}

TEST_F(RecordsTest, RemarksSayWhatWasPassedOver) {
  const RecordOptions options = {.with_remarks = true};
  const Record record =
      one(R"({"messages": [{"role": "user", "content": [{"type": "audio"}], "rol": "x", "name": "n", "extra": null},)"
          R"({"role": "assistant", "tool_calls": "{\"name\": \"f\", "}], "tolls": 1, "topic": 2})",
          options);
  ASSERT_EQ(record.remarks.size(), 4u);
  EXPECT_EQ(record.remarks[0].text, "message 0 has the field \"rol\"");
  EXPECT_EQ(record.remarks[1].kind, RemarkKind::kUnsupportedPart);
  EXPECT_EQ(record.remarks[2].kind, RemarkKind::kBrokenCall);
  EXPECT_NE(record.remarks[3].text.find("is it \"tools\"?"), std::string::npos) << record.remarks[3].text;
  EXPECT_EQ(record.messages[1].tool_calls.size(), 1u);
}

TEST_F(RecordsTest, ReadsRealToolDialogues) {
  SKIP_WITHOUT_SHARED_DATA("glaive-toolcall");
  int64_t num_records = 0, num_with_tools = 0, num_calls = 0, num_results = 0;
  for (const char* name : {"glaive_toolcall_en_demo.jsonl", "glaive_toolcall_zh_demo.jsonl"}) {
    for_each_record(shared_data() / "glaive-toolcall" / name, [&](Record&& record) {
      ++num_records;
      num_with_tools += !record.messages[0].tools.empty();
      for (const Message& message : record.messages) {
        num_calls += static_cast<int64_t>(message.tool_calls.size());
        num_results += message.role == "tool";
      }
    });
  }
  EXPECT_EQ(num_records, 600);
  EXPECT_EQ(num_with_tools, 391);
  EXPECT_EQ(num_calls, 427);
  EXPECT_EQ(num_results, 429);
}

TEST_F(RecordsTest, ReadsTheMakersConversations) {
  SKIP_WITHOUT_SHARED_DATA("deepseek-v4-encoding");
  int64_t num_records = 0;
  for_each_record(shared_data() / "deepseek-v4-encoding" / "test_input_1.json", [&](Record&& record) {
    ++num_records;
    EXPECT_NE(record.messages[0].tools.find("\"get_weather\""), std::string::npos);
  });
  EXPECT_EQ(num_records, 1);
}

}  // namespace
}  // namespace temper::data
