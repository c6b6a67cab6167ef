#include "base/json_numbers.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

using nlohmann::json;

TEST(JsonNumbers, WholeNumbersOfSixtyThreeBitsAreTaken) {
  for (const int64_t number : {int64_t{0}, int64_t{-7}, INT64_MAX, INT64_MIN})
    EXPECT_EQ(whole_number(json::parse(std::to_string(number))), number);
  EXPECT_EQ(whole_numbers(json::parse("[1, 2]")), (std::vector<int64_t>{1, 2}));
}

TEST(JsonNumbers, WhatNoIntegerHoldsIsRefused) {
  for (const char* text : {"1e300", "-1e300", "2.0", "9223372036854775808", "true", "\"1\"", "null", "[]"})
    EXPECT_THROW(whole_number(json::parse(text)), Error) << text;
  EXPECT_THROW(whole_numbers(json::parse("[1, 1e300]")), Error);
  EXPECT_THROW(whole_numbers(json::parse("1")), Error);
}

}  // namespace
}  // namespace temper
