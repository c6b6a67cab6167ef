// Whole numbers out of JSON: the library converts 1e300 to an integer without a word, which C++ leaves undefined.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace temper {

// The value of a whole number. Throws kCorrupt for anything else, 2.0 and what exceeds int64_t among it.
template <class Json>
int64_t whole_number(const Json& value) {
  const bool is_whole =
      value.is_number_integer() &&
      (!value.is_number_unsigned() || value.template get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()});
  if (!is_whole) fail(ErrorCode::kCorrupt, "found {} where a whole number of 63 bits should be", describe_json(value));
  return value.template get<int64_t>();
}

// The same of a list of them.
template <class Json>
std::vector<int64_t> whole_numbers(const Json& list) {
  if (!list.is_array()) fail(ErrorCode::kCorrupt, "found {} where a list should be", describe_json(list));
  std::vector<int64_t> numbers;
  for (const Json& value : list) numbers.push_back(whole_number(value));
  return numbers;
}

}  // namespace temper
