#include "base/json.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace temper {
namespace {

using testing::HasSubstr;

std::string error_of(std::string_view text, int max_depth = 32) {
  try {
    parse_json<nlohmann::json>(text, "here", max_depth);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(JsonTest, BuildsTheValueInTheOrderAskedFor) {
  constexpr std::string_view kText = R"({"b": [1, -2, 2.5, "x", null, true], "a": {"c": {}, "d": []}})";
  const auto sorted = parse_json<nlohmann::json>(kText, "here");
  EXPECT_EQ(sorted.dump(), R"({"a":{"c":{},"d":[]},"b":[1,-2,2.5,"x",null,true]})");
  EXPECT_TRUE(sorted["b"][0].is_number_unsigned());
  EXPECT_EQ(parse_json<nlohmann::ordered_json>(kText, "here").dump(),
            R"({"b":[1,-2,2.5,"x",null,true],"a":{"c":{},"d":[]}})");
  EXPECT_EQ(parse_json<nlohmann::json>(" 7 ", "here"), 7);
}

TEST(JsonTest, NamesAreUniqueInTheirObject) {
  EXPECT_EQ(error_of(R"([{"a": 1}, {"a": {"a": 1}}])"), "no error");
  EXPECT_THAT(error_of(R"({"a": {"b": 1, "c": [], "b": 2}})"), HasSubstr("here: the name \"b\" occurs twice"));
  EXPECT_THAT(error_of(R"({"a": 1, "b": {"a": 1}, "a": 2})"), HasSubstr("\"a\" occurs twice"));
}

TEST(JsonTest, NestingIsBounded) {
  EXPECT_EQ(error_of(R"({"a": [1]})", 2), "no error");
  EXPECT_THAT(error_of(R"({"a": [[]]})", 2), HasSubstr("nested deeper than 2 levels"));
  EXPECT_THAT(error_of(std::string(100000, '[')), HasSubstr("nested deeper than 32 levels"));
}

TEST(JsonTest, WhatIsNoJsonIsRefusedWithItsPlace) {
  EXPECT_THAT(error_of("{\"a\":\n 1,}"), HasSubstr("here: not valid JSON: [json.exception.parse_error.101] parse error "
                                                   "at line 2, column 4"));
  for (const char* text : {"", "{", "[1", "{\"a\"}", "1 2", "nul", "\"\xff\"", "{} {}", "1e999"})
    EXPECT_THAT(error_of(text), HasSubstr("not valid JSON")) << text;
}

// The headers of whole models are one object of many: time must not grow with its square.
TEST(JsonTest, ObjectsOfManyObjectsAreRead) {
  std::string text = "{";
  for (int i = 0; i < 20000; ++i) text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + R"(":{"shape":[1]})";
  EXPECT_EQ(parse_json<nlohmann::json>(text + "}", "here").size(), 20000u);
}

}  // namespace
}  // namespace temper
