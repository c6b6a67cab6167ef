// Text files of one item a line.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace temper {

// Calls body(line, number) for every line that is not blank, without its line end. number counts all lines from 1.
template <class Body>
void for_each_line(std::string_view contents, const Body& body) {
  int64_t number = 0;
  for (size_t begin = 0; begin < contents.size();) {
    const size_t end = std::min(contents.find('\n', begin), contents.size());
    const std::string_view line = contents.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) body(line, number);
  }
}

}  // namespace temper
