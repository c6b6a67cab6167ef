#include "data/python_json.h"

#include <gtest/gtest.h>

namespace temper::data {
namespace {

std::string dumped(std::string_view text) {
  const auto value = read_python_json(text);
  if (!value) return "not JSON";
  return value->kind == JsonKind::kString ? python_json_string(value->text) : value->text;
}

// What Python 3.11 prints for json.dumps(json.loads(text), ensure_ascii=False).
TEST(PythonJson, WritesNumbersAsPythonDoes) {
  EXPECT_EQ(dumped("[1.0, 1E5, 1e-7, 0.0001, 1e16, 123456789012345.5, 1e15, -0.0, -0, 1e22, 5e-324]"),
            "[1.0, 100000.0, 1e-07, 0.0001, 1e+16, 123456789012345.5, 1000000000000000.0, -0.0, 0, 1e+22, 5e-324]");
  EXPECT_EQ(dumped("[18446744073709551616, -9223372036854775809, 18446744073709551615, 0.1]"),
            "[18446744073709551616, -9223372036854775809, 18446744073709551615, 0.1]");
}

TEST(PythonJson, WritesStringsAsPythonDoes) {
  EXPECT_EQ(dumped(R"("a\"\\\/\b\f\n\r\t\u0001\u007f\u00e9\u4f60\ud83d\ude00")"),
            "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f\u00e9\u4f60\U0001F600\"");
}

TEST(PythonJson, KeepsOrderAndTheLastOfEqualKeys) {
  EXPECT_EQ(dumped("{\"b\":1,\"a\":{ },\"c\":[ ],\n \"b\" : [true,null]}"), R"({"b": [true, null], "a": {}, "c": []})");
}

TEST(PythonJson, ShowsWhatIsDirectlyInside) {
  const auto value = read_python_json(R"({"s": "x\"y", "n": 3, "o": {"u": true}})");
  ASSERT_TRUE(value);
  ASSERT_EQ(value->members.size(), 3u);
  EXPECT_EQ(value->members[0].text, "x\"y");
  EXPECT_EQ(value->members[0].kind, JsonKind::kString);
  EXPECT_EQ(value->members[1].text, "3");
  EXPECT_EQ(value->members[2].key, "o");
  EXPECT_EQ(value->members[2].text, R"({"u": true})");
}

TEST(PythonJson, KnowsWhatIsNotJson) {
  for (const char* text : {"", " ", "{", "[1,]", "{'a': 1}", "01", "1 2", "NaN", "1e999", "\"\x01\"", "\"\\ud800\"",
                           "\xEF\xBB\xBF[]", "\"\xff\""})
    EXPECT_EQ(dumped(text), "not JSON") << text;
  EXPECT_NE(dumped(std::string(500, '[') + std::string(500, ']')), "not JSON");
  EXPECT_EQ(dumped(std::string(501, '[') + std::string(501, ']')), "not JSON");
  EXPECT_EQ(dumped(std::string(1000000, '[')), "not JSON");
}

TEST(PythonJson, TruthIsPythons) {
  for (const char* text : {"null", "false", "0", "0.0", "-0.0", "\"\"", "[]", "{}"})
    EXPECT_FALSE(read_python_json(text)->is_truthy()) << text;
  for (const char* text : {"true", "1", "\"0\"", "[0]", "{\"a\": 0}"})
    EXPECT_TRUE(read_python_json(text)->is_truthy()) << text;
}

}  // namespace
}  // namespace temper::data
